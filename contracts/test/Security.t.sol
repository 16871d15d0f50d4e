// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {Escrow} from "../src/Escrow.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {IPriceOracle} from "../src/interfaces/IPriceOracle.sol";
import {EscrowBase} from "./EscrowBase.sol";
import {FixedOracle, HostileWallet, Wallet} from "./Mocks.sol";

/// A token that calls back into the escrow, or moves less than it says.
contract HostileToken is ERC20("Hostile", "H") {
    Escrow public prey;
    bytes public call;
    uint256 public tax;
    bool public reentered;

    constructor() {
        _mint(msg.sender, 1e24);
    }

    function aim(Escrow prey_, bytes calldata call_, uint256 tax_) external {
        (prey, call, tax) = (prey_, call_, tax_);
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (tax != 0) super._update(to, address(0xDEAD), tax);
        if (call.length != 0) {
            (bool ok, bytes memory why) = address(prey).call(call);
            require(
                !ok && bytes4(why) == ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector,
                "re-entered"
            );
            reentered = true;
        }
    }
}

/// What attackers try against the escrow.
contract SecurityTest is EscrowBase {
    address internal wallet;

    function test_replay_on_another_chain_or_contract_is_refused() public {
        IEscrow.Order memory o = order(lease, 10_000_000);
        bytes memory s = sig(BUYER, escrow.orderHash(o));
        Escrow twin = new Escrow(IERC20(address(ath)), oracle, treasury, address(manager));
        ath.approve(address(twin), 10e18);
        twin.deposit(buyer, 10e18);
        vm.startPrank(operator);
        vm.expectRevert(IEscrow.Signature.selector);
        twin.reserve(o, s, 1);
        uint256 id = block.chainid;
        vm.chainId(id + 1);
        vm.expectRevert(IEscrow.Signature.selector);
        escrow.reserve(o, s, 1);
        vm.chainId(id);
        escrow.reserve(o, s, 1);
    }

    function test_a_voucher_is_no_statement_and_no_others() public {
        open(lease, 10_000_000, 1_000_000);
        IEscrow.Voucher memory v = voucher(lease, 500_000);
        bytes memory s = sig(BUYER, escrow.voucherHash(v));
        vm.prank(operator);
        vm.expectRevert(IEscrow.Signature.selector);
        escrow.redeemStatement(
            buyer, IEscrow.Statement(lease, operator, 500_000, bytes32(uint256(10)), 0), s, 0
        );
        vm.expectRevert(IEscrow.NotOperator.selector);
        escrow.redeem(buyer, v, s, 0);
        v.operator = address(this);
        vm.expectRevert(IEscrow.UnknownLease.selector);
        escrow.redeem(buyer, v, s, 0);
    }

    function test_an_old_voucher_means_nothing_on_a_reused_lane() public {
        open(lease, 10_000_000, 1_000_000);
        IEscrow.Voucher memory v = voucher(lease, 500_000);
        bytes memory s = sig(BUYER, escrow.voucherHash(v));
        vm.prank(operator);
        escrow.close(buyer, lease);
        vm.warp(NOW + 1);
        open(bytes16(uint128(0xB2000000_00000000_00000000_00000001)), 10_000_000, 1_000_000);
        vm.prank(operator);
        vm.expectRevert(IEscrow.UnknownLease.selector);
        escrow.redeem(buyer, v, s, 0);
    }

    function testFuzz_malformed_signatures_pay_nothing(bytes calldata junk, uint8 flip) public {
        open(lease, 10_000_000, 1_000_000);
        IEscrow.Voucher memory v = voucher(lease, 500_000);
        bytes memory s = sig(BUYER, escrow.voucherHash(v));
        s[flip % 65] = bytes1(uint8(s[flip % 65]) ^ uint8(1 + flip % 255));
        vm.startPrank(operator);
        vm.expectRevert(IEscrow.Signature.selector);
        escrow.redeem(buyer, v, s, 0);
        vm.expectRevert(IEscrow.Signature.selector);
        escrow.redeem(buyer, v, junk, 0);
    }

    function test_v_of_0_or_1_and_high_s_are_refused() public {
        open(lease, 10_000_000, 1_000_000);
        IEscrow.Voucher memory v = voucher(lease, 500_000);
        (uint8 y, bytes32 r, bytes32 s) = vm.sign(BUYER, escrow.voucherHash(v));
        uint256 n = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
        vm.startPrank(operator);
        vm.expectRevert(IEscrow.Signature.selector);
        escrow.redeem(buyer, v, abi.encodePacked(r, s, y - 27), 0);
        vm.expectRevert(IEscrow.Signature.selector);
        escrow.redeem(buyer, v, abi.encodePacked(r, n - uint256(s), y == 27 ? 28 : 27), 0);
    }

    function test_a_contract_wallet_buys_and_pays() public {
        wallet = address(new Wallet(buyer));
        escrow.deposit(wallet, 100e18);
        IEscrow.Order memory o = order(lease, 1_000_000);
        o.buyer = wallet;
        bytes memory s = sig(BUYER, escrow.orderHash(o));
        vm.startPrank(operator);
        escrow.reserve(o, s, 500_000);
        IEscrow.Voucher memory v = voucher(lease, 300_000);
        escrow.redeem(wallet, v, sig(BUYER, escrow.voucherHash(v)), 0);
        vm.assertEq(escrow.laneOf(wallet, operator, lease).paid, 300_000);
        v.amount = 400_000;
        s = sig(OPERATOR, escrow.voucherHash(v));
        vm.expectRevert(IEscrow.Signature.selector);
        escrow.redeem(wallet, v, s, 0);
    }

    /// The wallet turns hostile after its lease began: it can spoil its own voucher, not the batch.
    function testFuzz_a_hostile_wallet_does_not_stop_a_batch(bool burns) public {
        wallet = address(new Wallet(buyer));
        escrow.deposit(wallet, 100e18);
        IEscrow.Order memory o = order(lease, 1_000_000);
        o.buyer = wallet;
        bytes memory s = sig(BUYER, escrow.orderHash(o));
        vm.prank(operator);
        escrow.reserve(o, s, 500_000);
        open(lease, 1_000_000, 500_000);
        vm.etch(wallet, address(new HostileWallet(burns)).code);
        vm.store(wallet, 0, bytes32(uint256(burns ? 1 : 0)));
        IEscrow.Redemption[] memory batch = new IEscrow.Redemption[](2);
        IEscrow.Voucher memory v = voucher(lease, 300_000);
        batch[0] = IEscrow.Redemption(wallet, v, sig(OPERATOR, escrow.voucherHash(v)), 0);
        batch[1] = IEscrow.Redemption(buyer, v, sig(BUYER, escrow.voucherHash(v)), 0);
        vm.prank(operator);
        escrow.redeemBatch{gas: 1_000_000}(batch);
        vm.assertEq(escrow.laneOf(wallet, operator, lease).paid, 0);
        vm.assertEq(escrow.laneOf(buyer, operator, lease).paid, 300_000);
    }

    function test_a_hostile_token_cannot_reenter() public {
        HostileToken bad = new HostileToken();
        Escrow prey = new Escrow(bad, oracle, treasury, address(manager));
        bad.approve(address(prey), type(uint256).max);
        prey.deposit(address(this), 1_000);
        bad.aim(prey, abi.encodeCall(prey.deposit, (address(bad), 1)), 0);
        prey.deposit(address(this), 1_000);
        bad.aim(prey, abi.encodeCall(prey.withdraw, (address(bad))), 0);
        prey.thaw(500);
        vm.warp(block.timestamp + 1 days);
        prey.withdraw(address(this));
        vm.assertTrue(bad.reentered());
        (uint256 balance,,,,) = prey.accountOf(address(this));
        vm.assertEq(balance, bad.balanceOf(address(prey)));
    }

    function test_Reverts_When_a_token_moves_less_than_asked() public {
        HostileToken bad = new HostileToken();
        Escrow prey = new Escrow(bad, oracle, treasury, address(manager));
        bad.approve(address(prey), type(uint256).max);
        bad.aim(prey, "", 1);
        vm.expectRevert(IEscrow.Token.selector);
        prey.deposit(address(this), 1_000);
    }

    function test_a_session_key_has_an_allowance_and_an_end() public {
        uint64 until = uint64(NOW + 1 days);
        bytes memory proof = sig(77, _signer(77, until, 15_000_000, 0));
        vm.prank(buyer);
        escrow.setSigner(vm.addr(77), until, 15_000_000, proof);
        vm.prank(buyer);
        vm.expectRevert(IEscrow.Signature.selector);
        escrow.setSigner(vm.addr(77), until, 15_000_000, proof);
        _openBy(77, lease, 10_000_000);
        bytes16 second = bytes16(uint128(2));
        IEscrow.Order memory o = order(second, 10_000_000);
        bytes memory s = sig(77, escrow.orderHash(o));
        vm.prank(operator);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Funds.selector, 10_000_000, 5_000_000));
        escrow.reserve(o, s, 1);

        vm.prank(buyer);
        escrow.revokeSigner(vm.addr(77));
        o = order(second, 1);
        s = sig(77, escrow.orderHash(o));
        vm.prank(operator);
        vm.expectRevert(IEscrow.Signature.selector);
        escrow.reserve(o, s, 1);
        _payBy(77, 100_000);
        vm.warp(NOW + 1 days + 1);
        IEscrow.Voucher memory v = voucher(lease, 200_000);
        s = sig(77, escrow.voucherHash(v));
        vm.prank(operator);
        vm.expectRevert(IEscrow.Signature.selector);
        escrow.redeem(buyer, v, s, 0);
    }

    /// A buyer cannot make vouchers that are out worthless faster than the thaw period.
    function test_a_session_key_cannot_be_cut_short() public {
        uint64 until = uint64(NOW + 10 days);
        bytes memory proof = sig(77, _signer(77, until, 15_000_000, 0));
        vm.prank(buyer);
        escrow.setSigner(vm.addr(77), until, 15_000_000, proof);
        _openBy(77, lease, 10_000_000);
        proof = sig(77, _signer(77, uint64(NOW), 0, 1));
        vm.prank(buyer);
        vm.expectRevert(IEscrow.Range.selector);
        escrow.setSigner(vm.addr(77), uint64(NOW), 0, proof);
        vm.warp(NOW + 10 days + 23 hours);
        _payBy(77, 100_000);
    }

    function test_an_operators_key_acts_for_it() public {
        uint64 until = uint64(NOW + 1 days);
        bytes32 digest = _signerOf(operator, 88, until, 50_000, 0);
        vm.prank(operator);
        escrow.setSigner(vm.addr(88), until, 50_000, sig(88, digest));
        IEscrow.Order memory o = order(lease, 1_000_000);
        bytes memory s = sig(BUYER, escrow.orderHash(o));
        vm.startPrank(vm.addr(88));
        escrow.reserve(o, s, 500_000);
        IEscrow.Voucher memory v = voucher(lease, 300_000);
        escrow.redeem(buyer, v, sig(BUYER, escrow.voucherHash(v)), 0);
        escrow.closeFor(buyer, operator, lease);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Funds.selector, 60_000, 50_000));
        escrow.refund(buyer, operator, lease, 60_000, "");
        escrow.refund(buyer, operator, lease, 40_000, "");
        vm.stopPrank();
        vm.prank(operator);
        escrow.revokeSigner(vm.addr(88));
        vm.prank(vm.addr(88));
        vm.expectRevert(IEscrow.NotOperator.selector);
        escrow.closeFor(buyer, operator, lease);
    }

    /// One batch in which an operator is also a buyer of another operator's: its earnings stay.
    function test_a_batch_of_operators_that_buy_from_each_other_loses_nothing() public {
        address relay = vm.addr(88);
        bytes32 digest = _signerOf(operator, 88, uint64(NOW + 1 days), 0, 0);
        vm.prank(operator);
        escrow.setSigner(relay, uint64(NOW + 1 days), 0, sig(88, digest));
        digest = _signerOf(buyer, 88, uint64(NOW + 1 days), 0, 0);
        vm.prank(buyer);
        escrow.setSigner(relay, uint64(NOW + 1 days), 0, sig(88, digest));
        escrow.deposit(operator, 100e18);
        open(lease, 1_000_000, 500_000);
        IEscrow.Order memory o = order(lease, 1_000_000);
        (o.buyer, o.operator) = (operator, buyer);
        bytes memory s = sig(OPERATOR, escrow.orderHash(o));
        vm.prank(relay);
        escrow.reserve(o, s, 500_000);
        IEscrow.Redemption[] memory batch = new IEscrow.Redemption[](3);
        IEscrow.Voucher memory v = voucher(lease, 300_000);
        batch[0] = IEscrow.Redemption(buyer, v, sig(BUYER, escrow.voucherHash(v)), 0);
        v = IEscrow.Voucher(lease, buyer, 200_000, 1);
        batch[1] = IEscrow.Redemption(operator, v, sig(OPERATOR, escrow.voucherHash(v)), 0);
        v = voucher(lease, 400_000);
        batch[2] = IEscrow.Redemption(buyer, v, sig(BUYER, escrow.voucherHash(v)), 0);
        vm.prank(relay);
        escrow.redeemBatch(batch);
        vm.assertEq(balanceOf(buyer), 1_000e18 - 400_000 * MICRO + 160_000 * MICRO);
        vm.assertEq(balanceOf(operator), 100e18 + 320_000 * MICRO - 200_000 * MICRO);
        vm.assertEq(balanceOf(treasury), 120_000 * MICRO);
    }

    /// What a node accepts must be collectable: money aside for a lease is out of the buyer's reach.
    function test_a_buyer_cannot_take_or_promise_twice_what_is_aside() public {
        vm.prank(buyer);
        escrow.thaw(1_000e18);
        vm.warp(NOW + 1 days);
        open(lease, 50_000_000, 50_000_000);
        vm.prank(buyer);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Funds.selector, 1_000e18, 0));
        escrow.withdraw(buyer);
        IEscrow.Order memory o = order(bytes16(uint128(2)), 50_000_000);
        bytes memory s = sig(BUYER, escrow.orderHash(o));
        vm.prank(operator);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Funds.selector, MICRO, 0));
        escrow.reserve(o, s, 1);
        pay(lease, 50_000_000, 0);
        vm.assertEq(balanceOf(operator), 800e18);
    }

    /// A refund after the price fell must not take more from the treasury than it got.
    function testFuzz_a_refund_is_no_option_on_the_treasury(uint256 price, uint64 back) public {
        open(lease, 10_000_000, 1_000_000);
        pay(lease, 1_000_000, 0);
        uint256 got = balanceOf(treasury);
        price = bound(price, 1e12, 1e21);
        back = uint64(bound(back, 0, 2_000_000));
        escrow.deposit(treasury, 1_000_000e18);
        escrow.deposit(operator, 1_000_000_000e18);
        oracle.set(price);
        vm.prank(operator);
        escrow.refund(buyer, operator, lease, back, "");
        vm.assertGe(balanceOf(treasury), 1_000_000e18);
        vm.assertLe(balanceOf(treasury), 1_000_000e18 + got);
    }

    function test_a_pause_is_bounded_and_stops_new_reservations_only() public {
        open(lease, 10_000_000, 1_000_000);
        escrow.pause(7 days);
        IEscrow.Order memory o = order(bytes16(uint128(2)), 10);
        bytes memory s = sig(BUYER, escrow.orderHash(o));
        vm.prank(operator);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Paused.selector, NOW + 7 days));
        escrow.reserve(o, s, 1);
        pay(lease, 100_000, 1_000_000);
        vm.prank(operator);
        escrow.close(buyer, lease);
        vm.expectRevert(IEscrow.Range.selector);
        escrow.pause(7 days + 1);
        vm.warp(NOW + 14 days - 1);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.NotYet.selector, NOW + 14 days));
        escrow.pause(1);
        open(bytes16(uint128(2)), 10, 1);
        vm.warp(NOW + 14 days);
        escrow.pause(1 days);
        escrow.unpause();
        open(bytes16(uint128(3)), 10, 1);
    }

    function test_another_oracle_comes_after_everybody_could_leave() public {
        FixedOracle next = new FixedOracle(1);
        escrow.setOracle(next);
        vm.prank(buyer);
        escrow.thaw(1_000e18);
        vm.warp(NOW + 1 days);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.NotYet.selector, NOW + 2 days));
        escrow.applyOracle();
        vm.prank(buyer);
        escrow.withdraw(buyer);
        vm.warp(NOW + 2 days);
        escrow.applyOracle();
        vm.assertEq(address(escrow.oracle()), address(next));
    }

    function test_a_permit_that_was_sent_before_does_not_matter() public {
        ath.transfer(buyer, 5e18);
        bytes32 digest = keccak256(
            abi.encodePacked(
                "\x19\x01",
                ath.DOMAIN_SEPARATOR(),
                keccak256(
                    abi.encode(
                        keccak256(
                            "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
                        ),
                        buyer,
                        address(escrow),
                        uint256(5e18),
                        uint256(0),
                        NOW
                    )
                )
            )
        );
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(BUYER, digest);
        ath.permit(buyer, address(escrow), 5e18, NOW, v, r, s);
        vm.prank(buyer);
        escrow.depositWithPermit(operator, 5e18, NOW, v, r, s);
        vm.assertEq(balanceOf(operator), 5e18);
    }

    function _openBy(uint256 key, bytes16 id, uint256 budget) internal {
        IEscrow.Order memory o = order(id, budget);
        bytes memory s = sig(key, escrow.orderHash(o));
        vm.prank(operator);
        escrow.reserve(o, s, 1_000);
    }

    function _payBy(uint256 key, uint256 amount) internal {
        IEscrow.Voucher memory v = voucher(lease, amount);
        bytes memory s = sig(key, escrow.voucherHash(v));
        vm.prank(operator);
        escrow.redeem(buyer, v, s, 0);
        vm.assertEq(escrow.laneOf(buyer, operator, lease).paid, amount);
    }

    function _signer(uint256 key, uint64 until, uint256 allowance, uint256 nonce)
        internal
        view
        returns (bytes32)
    {
        return _signerOf(buyer, key, until, allowance, nonce);
    }

    function _signerOf(address account, uint256 key, uint64 until, uint256 allowance, uint256 nonce)
        internal
        view
        returns (bytes32)
    {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256(
                    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
                ),
                keccak256("Welkin"),
                keccak256("1"),
                block.chainid,
                address(escrow)
            )
        );
        bytes32 what = keccak256(
            abi.encode(
                keccak256(
                    "Signer(address account,address signer,uint64 until,uint256 allowance,uint256 nonce)"
                ),
                account,
                vm.addr(key),
                until,
                allowance,
                nonce
            )
        );
        return keccak256(abi.encodePacked("\x19\x01", domain, what));
    }
}
