// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {EscrowBase} from "./EscrowBase.sol";

/// What an audit of the escrow found, each as it was exploited.
contract AuditEscrowTest is EscrowBase {
    function _refund(uint64 micros) internal {
        vm.prank(operator);
        escrow.refund(buyer, operator, lease, micros, "");
    }

    /// Buyer and operator, together, pay at a low fee and take back at a higher one.
    function testFuzz_a_changed_fee_is_no_option_on_the_treasury(uint16 before, uint16 later, uint64 micros)
        public
    {
        escrow.setFee(uint16(bound(before, 0, 3_000)));
        micros = uint64(bound(micros, 1, 10_000_000));
        open(lease, 10_000_000, 1_000_000);
        uint256 money = balanceOf(buyer);
        pay(lease, micros, 0);
        uint256 got = balanceOf(operator);
        escrow.deposit(treasury, 1_000e18);
        escrow.deposit(operator, 1_000e18);
        escrow.setFee(uint16(bound(later, 0, 3_000)));
        _refund(micros);
        vm.assertGe(balanceOf(treasury), 1_000e18, "others' fees");
        vm.assertGe(balanceOf(operator) + got, 1_000e18 + got, "what the operator never got");
        vm.assertEq(balanceOf(buyer), money);
    }

    /// Payments at several fees: the treasury gives at most the lowest of them.
    function testFuzz_fees_that_change_during_a_lease_are_no_option(uint16[3] calldata fees, uint64 micros)
        public
    {
        open(lease, 10_000_000, 1_000_000);
        escrow.deposit(operator, 1_000e18);
        escrow.deposit(treasury, 1_000e18);
        for (uint256 i; i < 3; ++i) {
            escrow.setFee(uint16(bound(fees[i], 0, 3_000)));
            pay(lease, 1_000_003 * (i + 1), 0);
        }
        escrow.setFee(3_000);
        _refund(uint64(bound(micros, 0, 4_000_000)));
        vm.assertGe(balanceOf(treasury) + 3 * MICRO, 1_000e18); // a micro for each fee
    }
}
