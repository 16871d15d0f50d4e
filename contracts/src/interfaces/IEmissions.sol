// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @title What others ask of the emissions.
interface IEmissions {
    /// @notice What may still be drawn of a stream, if nothing is drawn of another before.
    function room(uint8 stream) external view returns (uint256);

    /// @notice Reverts unless these sums can be drawn together.
    function check(uint256[3] calldata amounts) external view;

    /// @notice The epoch whose pool is granted.
    function epoch() external view returns (uint32);

    /// @notice When an epoch is over, in seconds since 1970.
    function epochEnd(uint32 number) external view returns (uint256);

    /// @notice Sends what was earned to the caller, a sum for each stream.
    function draw(uint256[3] calldata amounts) external;

    /// @notice Ends the present epoch and grants the pool of the next.
    /// @param units how many units of capacity were active in it
    function advance(uint256 units) external;
}
