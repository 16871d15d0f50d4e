// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @title What Arbitrum's custom gateway asks of a token at home.
interface ICustomToken {
    /// @notice Must return 0xb1 (177).
    function isArbitrumEnabled() external view returns (uint8);

    /// @notice Ties the token to its form on the rollup, at the gateway and at the router.
    function registerTokenOnL2(
        address l2CustomTokenAddress,
        uint256 maxSubmissionCostForCustomGateway,
        uint256 maxSubmissionCostForRouter,
        uint256 maxGasForCustomGateway,
        uint256 maxGasForRouter,
        uint256 gasPriceBid,
        uint256 valueForGateway,
        uint256 valueForRouter,
        address creditBackAddress
    ) external payable;
}

/// @title The part of Arbitrum's custom gateway at home that is used.
interface IL1CustomGateway {
    /// @notice Ties the calling token to its form on the rollup.
    function registerTokenToL2(
        address l2Address,
        uint256 maxGas,
        uint256 gasPriceBid,
        uint256 maxSubmissionCost,
        address creditBackAddress
    ) external payable returns (uint256);
}

/// @title The part of Arbitrum's gateway router at home that is used.
interface IL1GatewayRouter {
    /// @notice Routes the calling token through a gateway.
    function setGateway(
        address gateway,
        uint256 maxGas,
        uint256 gasPriceBid,
        uint256 maxSubmissionCost,
        address creditBackAddress
    ) external payable returns (uint256);
}
