// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IArbSys} from "../../src/interfaces/arbitrum/IArbSys.sol";
import {IArbToken} from "../../src/interfaces/arbitrum/IArbToken.sol";
import {TestGatewayL1} from "./TestGatewayL1.sol";

/// @title A custom gateway on the rollup with Arbitrum's interface: makes and destroys.
contract TestGatewayL2 {
    /// @dev What is added to a contract's address at home when it calls on the rollup.
    uint160 private constant ALIAS = uint160(0x1111000000000000000000000000000000001111);
    IArbSys private constant ARB_SYS = IArbSys(address(100));

    /// @notice The gateway at home.
    address public immutable counterpart;
    /// @notice A token's form here.
    mapping(address l1Token => address) public l1ToL2Token;

    /// @notice Not from the gateway at home.
    error OnlyCounterpart();
    /// @notice The token is not known here, or another one's form.
    error Token();

    constructor(address counterpart_) {
        counterpart = counterpart_;
    }

    modifier onlyCounterpart() {
        unchecked {
            if (msg.sender != address(uint160(counterpart) + ALIAS)) revert OnlyCounterpart();
        }
        _;
    }

    /// @notice Learns the forms of tokens; only from the gateway at home.
    function registerTokenFromL1(address[] calldata l1, address[] calldata l2) external onlyCounterpart {
        for (uint256 i; i < l1.length; ++i) {
            l1ToL2Token[l1[i]] = l2[i];
        }
    }

    /// @notice Makes what was kept at home; only for the gateway there.
    function finalizeInboundTransfer(address l1Token, address, address to, uint256 amount, bytes calldata)
        external
        onlyCounterpart
    {
        IArbToken token = _known(l1Token);
        token.bridgeMint(to, amount);
    }

    /// @notice Destroys `amount` of the sender and has it given back at home to `to`.
    function outboundTransfer(address l1Token, address to, uint256 amount, bytes calldata data)
        external
        returns (bytes memory)
    {
        IArbToken token = _known(l1Token);
        token.bridgeBurn(msg.sender, amount);
        bytes memory call =
            abi.encodeCall(TestGatewayL1.finalizeInboundTransfer, (l1Token, msg.sender, to, amount, data));
        return abi.encode(ARB_SYS.sendTxToL1(counterpart, call));
    }

    function _known(address l1Token) private view returns (IArbToken token) {
        token = IArbToken(l1ToL2Token[l1Token]);
        if (address(token).code.length == 0 || token.l1Address() != l1Token) revert Token();
    }
}
