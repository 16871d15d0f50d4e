// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @title What Arbitrum's custom gateway asks of a token on the rollup.
interface IArbToken {
    /// @notice Makes tokens that were locked at home; only by the gateway.
    function bridgeMint(address account, uint256 amount) external;

    /// @notice Destroys tokens that go home; only by the gateway.
    function bridgeBurn(address account, uint256 amount) external;

    /// @notice The token at home.
    function l1Address() external view returns (address);
}
