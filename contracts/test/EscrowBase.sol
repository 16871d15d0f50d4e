// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {AccessManager} from "@openzeppelin/contracts/access/manager/AccessManager.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {Ath} from "../src/Ath.sol";
import {Escrow} from "../src/Escrow.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {FixedOracle} from "./Mocks.sol";
import {T} from "./T.sol";

/// An escrow with one funded buyer and one operator. One ATH costs 5 cents: 1 micro is 2e13 wei.
abstract contract EscrowBase is T {
    uint256 internal constant BUYER = 0xB0B;
    uint256 internal constant OPERATOR = 0x0B;
    uint256 internal constant KEY = 0x5E55;
    uint256 internal constant NOW = 1_800_000_000;
    uint256 internal constant PRICE = 0.05e18;
    uint256 internal constant MICRO = 2e13;

    Ath internal ath;
    Escrow internal escrow;
    FixedOracle internal oracle;
    AccessManager internal manager;
    address internal treasury = address(0x7EA);
    address internal buyer = vm.addr(BUYER);
    address internal operator = vm.addr(OPERATOR);
    bytes16 internal lease = bytes16(uint128(0xA1000000_00000000_00000000_00000001));

    function setUp() public virtual {
        vm.warp(NOW);
        ath = new Ath(address(this));
        manager = new AccessManager(address(this));
        oracle = new FixedOracle(PRICE);
        escrow = new Escrow(IERC20(address(ath)), oracle, treasury, address(manager));
        ath.approve(address(escrow), type(uint256).max);
        escrow.deposit(buyer, 1_000e18);
    }

    function order(bytes16 id, uint256 budget) internal view returns (IEscrow.Order memory o) {
        o.lease = id;
        o.buyer = buyer;
        o.operator = operator;
        o.host = bytes32(uint256(7));
        o.container = bytes16(uint128(8));
        o.pricePerHour = 2_000_000;
        o.budget = budget;
        o.task = keccak256("task");
        o.issued = uint64(block.timestamp * 1000);
        o.expires = uint64((block.timestamp + 60) * 1000);
    }

    function voucher(bytes16 id, uint256 amount) internal view returns (IEscrow.Voucher memory) {
        return IEscrow.Voucher(id, operator, amount, 10);
    }

    function open(bytes16 id, uint256 budget, uint64 micros) internal {
        IEscrow.Order memory o = order(id, budget);
        bytes memory s = sig(BUYER, escrow.orderHash(o));
        vm.prank(operator);
        escrow.reserve(o, s, micros);
    }

    function pay(bytes16 id, uint256 amount, uint64 holdBeyond) internal {
        IEscrow.Voucher memory v = voucher(id, amount);
        bytes memory s = sig(BUYER, escrow.voucherHash(v));
        vm.prank(operator);
        escrow.redeem(buyer, v, s, holdBeyond);
    }

    function balanceOf(address account) internal view returns (uint256 balance) {
        (balance,,,,) = escrow.accountOf(account);
    }

    function heldOf(address account) internal view returns (uint256 held) {
        (, held,,,) = escrow.accountOf(account);
    }
}
