// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Ath} from "./Ath.sol";
import {ICustomToken, IL1CustomGateway, IL1GatewayRouter} from "./interfaces/arbitrum/ICustomToken.sol";

/// @title ATH at home where the network itself lives on Arbitrum.
/// @notice As [`Ath`]; it can be tied to one form on the rollup, for good.
contract AthL1 is Ath, ICustomToken {
    /// @notice Arbitrum's custom gateway at home.
    IL1CustomGateway public immutable gateway;
    /// @notice Arbitrum's gateway router at home.
    IL1GatewayRouter public immutable router;
    /// @notice Who may tie the token to its form on the rollup.
    address public immutable registrar;
    /// @notice Its form on the rollup; zero before it was tied.
    address public l2Address;

    /// @notice It was tied to its form on the rollup.
    event RegisteredOnL2(address l2Address);

    /// @notice Not the registrar, or tied to another form already.
    error NotRegistrar();

    /// @param holder who receives the supply
    /// @param gateway_ Arbitrum's custom gateway at home
    /// @param router_ Arbitrum's gateway router at home
    /// @param registrar_ who may tie the token to its form on the rollup
    constructor(address holder, IL1CustomGateway gateway_, IL1GatewayRouter router_, address registrar_)
        Ath(holder)
    {
        (gateway, router, registrar) = (gateway_, router_, registrar_);
    }

    /// @inheritdoc ICustomToken
    function isArbitrumEnabled() external pure returns (uint8) {
        return 0xb1;
    }

    /// @inheritdoc ICustomToken
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
    ) external payable {
        // The same again: a message to the rollup that nobody redeemed in a week is lost.
        bool fits = l2Address == address(0) || l2Address == l2CustomTokenAddress;
        if (msg.sender != registrar || !fits || l2CustomTokenAddress == address(0)) revert NotRegistrar();
        if (valueForGateway + valueForRouter != msg.value) revert NotRegistrar();
        l2Address = l2CustomTokenAddress;
        emit RegisteredOnL2(l2CustomTokenAddress);
        gateway.registerTokenToL2{value: valueForGateway}(
            l2CustomTokenAddress,
            maxGasForCustomGateway,
            gasPriceBid,
            maxSubmissionCostForCustomGateway,
            creditBackAddress
        );
        router.setGateway{value: valueForRouter}(
            address(gateway), maxGasForRouter, gasPriceBid, maxSubmissionCostForRouter, creditBackAddress
        );
    }
}
