// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {Vests} from "../src/libraries/Vests.sol";
import {MedianOracle} from "../src/oracles/MedianOracle.sol";
import {Registry} from "../src/Registry.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Network} from "./Network.sol";

/// What things cost, as whole transactions (21,000 and calldata included), with the median oracle
/// as a private network has it. The figures are in snapshots/gas.json; the promised ones are
/// asserted here.
contract GasTest is Network {
    uint256 internal constant LANES = 100;
    bytes16 internal constant OLD = bytes16(uint128(0xA1000000_00000000_00000000_00000001));
    bytes16 internal constant NEW = bytes16(uint128(0xB2000000_00000000_00000000_00000001));

    function setUp() public override {
        super.setUp();
        address[] memory who = new address[](1);
        who[0] = address(this);
        MedianOracle.Limits memory limits = MedianOracle.Limits(365 days, 0, 65_535, 1);
        MedianOracle median =
            new MedianOracle(IERC20(address(ath)), address(treasury), address(manager), 0, limits, who);
        median.report(PRICE);
        escrow.setOracle(median);
        vm.warp(NOW + 2 days);
        escrow.applyOracle();
    }

    function cost(string memory name) internal returns (uint256) {
        return vm.snapshotGasLastCall("gas", name);
    }

    function order(uint256 key, bytes16 lease) internal view returns (IEscrow.Order memory o) {
        (o.lease, o.buyer, o.operator, o.budget) = (lease, vm.addr(key), operator, 50_000_000);
        (o.host, o.container, o.task) =
        (keccak256("host"), bytes16(keccak256("container")), keccak256("task"));
        o.pricePerHour = 2_000_000;
        (o.issued, o.expires) = (uint64(block.timestamp * 1000), uint64(block.timestamp * 1000 + 60_000));
    }

    function open(uint256 key, bytes16 lease) internal {
        IEscrow.Order memory o = order(key, lease);
        bytes memory s = sig(key, escrow.orderHash(o));
        vm.prank(operator);
        escrow.reserve(o, s, 1_000_000);
    }

    function entry(uint256 key, bytes16 lease, uint256 amount)
        internal
        view
        returns (IEscrow.Redemption memory)
    {
        IEscrow.Voucher memory v = IEscrow.Voucher(lease, operator, amount, 777);
        return IEscrow.Redemption(vm.addr(key), v, sig(key, escrow.voucherHash(v)), 1_000_000);
    }

    function redeem(uint256 key, bytes16 lease, uint256 amount) internal {
        IEscrow.Redemption memory r = entry(key, lease, amount);
        vm.prank(operator);
        escrow.redeem(r.buyer, r.voucher, r.signature, r.holdBeyond);
    }

    /// A buyer whose first lease is over and whose second, on the same lane, has begun.
    function reused(uint256 key) internal {
        escrow.deposit(vm.addr(key), 1_000e18);
        open(key, OLD);
        redeem(key, OLD, 300_000);
        vm.prank(operator);
        escrow.close(vm.addr(key), OLD);
        vm.warp(block.timestamp + 1);
        open(key, NEW);
    }

    function test_gas_accounts() public {
        escrow.deposit(buyer, 100e18);
        cost("deposit: new account");
        escrow.deposit(buyer, 1_000e18);
        cost("deposit: known account");
        open(BUYER, OLD);
        cost("reserve: new lane");
        redeem(BUYER, OLD, 200_000);
        cost("redeem: new lane, new operator and treasury");
        redeem(BUYER, OLD, 300_000);
        cost("redeem: same lane again");
        vm.prank(operator);
        escrow.close(buyer, OLD);
        cost("close");
        vm.warp(block.timestamp + 1);
        open(BUYER, NEW);
        cost("reserve: re-used lane");
        redeem(BUYER, NEW, 400_000);
        vm.assertLe(cost("redeem: re-used lane"), 80_000);
        IEscrow.Redemption memory r = entry(BUYER, NEW, 600_000);
        vm.prank(operator);
        escrow.closeWith(r.buyer, r.voucher, r.signature);
        cost("closeWith: re-used lane");
        vm.prank(operator);
        escrow.refund(buyer, operator, NEW, 100_000, "interrupted");
        cost("refund");
        vm.prank(operator);
        escrow.thaw(1e18);
        cost("thaw");
        vm.warp(block.timestamp + 1 days);
        vm.prank(operator);
        escrow.withdraw(operator);
        cost("withdraw");
    }

    function test_gas_batch_of_100_buyers_on_reused_lanes() public {
        IEscrow.Redemption[] memory batch = new IEscrow.Redemption[](LANES);
        for (uint256 i; i < LANES; ++i) {
            reused(10_000 + i);
            batch[i] = entry(10_000 + i, NEW, 400_000);
            batch[i].holdBeyond = 0;
        }
        vm.prank(operator);
        escrow.redeemBatch(batch);
        vm.assertLe(cost("redeemBatch: 100 buyers, re-used lanes"), LANES * 30_000);
        vm.assertEq(escrow.laneOf(vm.addr(10_099), operator, NEW).paid, 400_000);
        for (uint256 i; i < LANES; ++i) {
            batch[i] = entry(10_000 + i, NEW, 500_000);
        }
        vm.prank(operator);
        escrow.redeemBatch(batch);
        vm.assertLe(cost("redeemBatch: 100 buyers, re-used lanes, all topped up"), LANES * 35_000);
    }

    function test_gas_statement_of_100_leaves() public {
        reused(BUYER);
        IEscrow.Statement memory st = IEscrow.Statement(NEW, operator, 30_000_000, keccak256("root"), 100);
        bytes memory s = sig(BUYER, escrow.statementHash(st));
        vm.prank(operator);
        escrow.redeemStatement(buyer, st, s, 1_000_000);
        vm.assertLe(cost("redeemStatement: 100 leaves, re-used lane"), 100 * 6_000);
    }

    function test_gas_session_key() public {
        escrow.deposit(buyer, 1_000e18);
        bytes32 digest = _signerDigest(77, 100_000_000);
        vm.prank(buyer);
        escrow.setSigner(vm.addr(77), uint64(block.timestamp + 1 days), 100_000_000, sig(77, digest));
        cost("setSigner");
        IEscrow.Order memory o = order(BUYER, OLD);
        bytes memory s = sig(77, escrow.orderHash(o));
        vm.prank(operator);
        escrow.reserve(o, s, 1_000_000);
        cost("reserve: new lane, session key");
        IEscrow.Voucher memory v = IEscrow.Voucher(OLD, operator, 100_000, 7);
        s = sig(77, escrow.voucherHash(v));
        vm.prank(operator);
        escrow.redeem(buyer, v, s, 0);
        cost("redeem: new lane, session key");
    }

    function _signerDigest(uint256 key, uint256 allowance) internal view returns (bytes32) {
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
                buyer,
                vm.addr(key),
                uint64(block.timestamp + 1 days),
                allowance,
                uint256(0)
            )
        );
        return keccak256(abi.encodePacked("\x19\x01", domain, what));
    }

    function test_gas_register_verify_stake() public {
        // Others were there before.
        staking.stake(container, 1e18);
        vm.warp(block.timestamp + 10);
        vm.startPrank(owner);
        bytes32 h = registry.registerHost("another node", operator);
        uint256 sum = cost("registerHost");
        bytes32 c = registry.registerContainer(h, bytes16(keccak256("c")), 1, keccak256("print"));
        sum += cost("registerContainer");
        vm.stopPrank();
        registry.verify(c, keccak256("print"), 0);
        sum += cost("verify");
        vm.prank(owner);
        staking.commit(c);
        sum += cost("commit");
        vm.prank(owner);
        staking.stake(c, 133_422e18);
        uint256 stake = cost("stake: new container, first of an account");
        vm.assertLe(sum + stake, 202_872 + 255_527 + 112_584);
        vm.warp(block.timestamp + 10);
        vm.prank(owner);
        staking.stake(c, 10e18);
        vm.assertLe(cost("stake: more"), 120_000);
        vm.startPrank(owner);
        c = registry.registerContainer(h, "second", 1, "print");
        staking.stake(c, 10e18);
        vm.assertLe(cost("stake: new container"), 120_000);
        vm.stopPrank();
        vm.prank(owner);
        staking.unstake(c, 10e18);
        cost("unstake");
        vm.warp(block.timestamp + 180 days);
        staking.withdraw(1);
        cost("withdraw stake");
        vm.startPrank(owner);
        staking.delegate(owner);
        vm.warp(block.timestamp + 10);
        staking.stake(c, 10e18);
        cost("stake: more, votes delegated");
        vm.warp(block.timestamp + 10);
        h = registry.registerContainer(h, "one more", 1, "print");
        staking.stake(h, 10e18);
        cost("stake: new container, votes delegated");
        vm.stopPrank();
    }

    function test_gas_claim() public {
        for (uint32 n = 1; n <= 3; ++n) {
            uint256 total = uint256(n) * 1_000e18;
            (bytes32 root, bytes32[] memory proof) = _tree(_leaf(operator, 0, total), 17);
            _count(_epoch(n, root, total * 2, 0, 0));
            cost(n == 1 ? "accept: first epoch" : "accept");
            rewards.claim(operator, 0, total, Vests.Plan.Host, proof);
            uint256 gas = cost(n == 1 ? "claim: first of an account, 100k accounts" : "claim: 100k accounts");
            if (n != 1) vm.assertLe(gas, 80_000);
            uint256[] memory which = new uint256[](1);
            which[0] = n - 1;
            rewards.release(operator, 0, which);
            cost(n == 1 ? "release: first of an account" : "release");
        }
    }
}
