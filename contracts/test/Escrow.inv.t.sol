// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {AccessManager} from "@openzeppelin/contracts/access/manager/AccessManager.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {Ath} from "../src/Ath.sol";
import {Escrow} from "../src/Escrow.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {FixedOracle} from "./Mocks.sol";
import {T} from "./T.sol";

/// Does what buyers, operators and governance can do, in any order, and keeps its own books.
contract EscrowHandler is T {
    struct Ref {
        uint256 b;
        uint256 o;
        uint256 lane;
    }

    uint256 public constant PEOPLE = 4;
    uint256 public constant LANES = 2;

    address internal immutable RELAY = vm.addr(0x8E1A);

    Escrow public escrow;
    Ath public ath;
    FixedOracle public oracle;
    address public treasury;
    // Buyers and operators are the same people: one can be both at once.
    address[4] public people;

    /// Micros paid, by our books, for each lease that ever was.
    mapping(bytes32 lease => uint256) public paid;
    /// The highest voucher that was ever signed for a lease.
    mapping(bytes32 lease => uint256) public signed;
    /// The lease that a lane holds.
    mapping(bytes32 lane => bytes16) public current;
    bytes32[] public leases;
    /// Every lane that was ever opened, so that calls seldom miss.
    Ref[] private _refs;
    uint256 private _calls;
    /// How often each thing was done, to see that the campaign is not idle.
    uint256 public payments;
    uint256 public refunds;
    uint256 public releases;
    uint256 public deposited;
    uint256 public withdrawn;
    uint128 public issued;
    string public broken;

    constructor(Escrow escrow_, Ath ath_, FixedOracle oracle_) {
        (escrow, ath, oracle, treasury) = (escrow_, ath_, oracle_, escrow_.treasury());
        for (uint256 i; i < PEOPLE; ++i) {
            people[i] = vm.addr(i + 1);
        }
        ath_.approve(address(escrow_), type(uint256).max);
        for (uint256 i; i < PEOPLE; ++i) {
            bytes32 digest = _signerDigest(people[i], uint64(block.timestamp + 3650 days));
            vm.prank(people[i]);
            escrow_.setSigner(RELAY, uint64(block.timestamp + 3650 days), 0, sig(0x8E1A, digest));
        }
    }

    function _signerDigest(address account, uint64 until) private view returns (bytes32) {
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
        bytes32 kind =
            keccak256("Signer(address account,address signer,uint64 until,uint256 allowance,uint256 nonce)");
        bytes32 what = keccak256(abi.encode(kind, account, RELAY, until, uint256(0), uint256(0)));
        return keccak256(abi.encodePacked("\x19\x01", domain, what));
    }

    /// Spreads what the fuzzer gives, which is often 0 or the largest number.
    function mix(uint256 seed, uint256 most) private returns (uint256) {
        return uint256(keccak256(abi.encode(seed, ++_calls))) % (most + 1);
    }

    function keyOf(bytes16 lease, uint256 b, uint256 o) public pure returns (bytes32) {
        return keccak256(abi.encode(lease, b, o));
    }

    function leasesCount() external view returns (uint256) {
        return leases.length;
    }

    function deposit(uint256 seed) external {
        uint256 amount = mix(seed, 1e22);
        deposited += amount;
        escrow.deposit(people[mix(seed, PEOPLE - 1)], amount);
    }

    function reserve(uint256 seed) external {
        (uint256 b, uint256 o, uint256 lane) =
            (mix(seed, PEOPLE - 1), mix(seed, PEOPLE - 1), mix(seed, LANES - 1));
        IEscrow.Order memory order;
        order.lease = bytes16((++issued << 32) | uint128(lane));
        (order.buyer, order.operator) = (people[b], people[o]);
        order.budget = mix(seed, 2e8);
        // Two orders of the same second are told apart by their milliseconds.
        order.issued = uint64(block.timestamp * 1000 + issued);
        order.expires = uint64(block.timestamp * 1000 + 60_000);
        bytes memory s = sig(b + 1, escrow.orderHash(order));
        uint64 micros = uint64(mix(seed, order.budget / 4));
        vm.prank(people[o]);
        try escrow.reserve(order, s, micros) {
            bytes32 where = keccak256(abi.encode(b, o, lane));
            if (current[where] == 0) _refs.push(Ref(b, o, lane));
            current[where] = order.lease;
            leases.push(keyOf(order.lease, b, o));
        } catch {}
    }

    function redeem(uint256 seed) external {
        (uint256 b, uint256 o, uint256 lane) = _pick(mix(seed, 1e9));
        uint256 how = mix(seed, 7);
        bytes16 lease = current[keccak256(abi.encode(b, o, lane % LANES))];
        if (lease == 0) return;
        bytes32 key = keyOf(lease, b, o);
        uint256 amount = how == 0 ? signed[key] : mix(seed, 2e8);
        uint64 beyond = uint64(mix(seed, 2e8));
        IEscrow.Voucher memory v = IEscrow.Voucher(lease, people[o], amount, 1);
        bytes memory s = sig(b + 1, escrow.voucherHash(v));
        IEscrow.Lane memory before = escrow.laneOf(people[b], people[o], lease);
        if (amount > signed[key] && amount <= before.budget) signed[key] = amount;
        vm.prank(people[o]);
        if (how == 1) {
            IEscrow.Redemption[] memory batch = new IEscrow.Redemption[](2);
            batch[0] = batch[1] = IEscrow.Redemption(people[b], v, s, beyond);
            escrow.redeemBatch(batch);
        } else if (how == 2) {
            try escrow.closeWith(people[b], v, s) {} catch {}
        } else {
            try escrow.redeem(people[b], v, s, beyond) {} catch {}
        }
        IEscrow.Lane memory now_ = escrow.laneOf(people[b], people[o], lease);
        if (now_.paid > before.paid) ++payments;
        if (!before.open && now_.paid != before.paid) broken = "paid after close";
        if (now_.paid < before.paid) broken = "paid fell";
        paid[key] = now_.paid;
        if (now_.paid > signed[key]) broken = "paid more than signed";
        if (now_.paid > now_.budget) broken = "paid more than the budget";
    }

    /// One batch over people who buy from each other, sent by a key of all of them.
    function batch(uint256 seed) external {
        IEscrow.Redemption[] memory all = new IEscrow.Redemption[](4);
        Ref[4] memory refs;
        for (uint256 i; i < 4; ++i) {
            (refs[i].b, refs[i].o, refs[i].lane) = _pick(mix(seed, 1e9));
            uint64 beyond = uint64(mix(seed, 2e8));
            all[i] = _entry(refs[i].b, refs[i].o, refs[i].lane, mix(seed, 2e8), beyond);
        }
        vm.prank(RELAY);
        escrow.redeemBatch(all);
        for (uint256 i; i < 4; ++i) {
            _note(refs[i].b, refs[i].o, refs[i].lane);
        }
    }

    function _pick(uint256 pick) private view returns (uint256, uint256, uint256) {
        Ref memory r = _refs[pick % _refs.length];
        return (r.b, r.o, r.lane);
    }

    function _entry(uint256 b, uint256 o, uint256 lane, uint256 amount, uint64 beyond)
        private
        returns (IEscrow.Redemption memory)
    {
        bytes16 lease = current[keccak256(abi.encode(b, o, lane))];
        bytes32 key = keyOf(lease, b, o);
        IEscrow.Voucher memory v = IEscrow.Voucher(lease, people[o], amount, 1);
        if (lease != 0 && amount > signed[key]) {
            if (amount <= escrow.laneOf(people[b], people[o], lease).budget) signed[key] = amount;
        }
        return IEscrow.Redemption(people[b], v, sig(b + 1, escrow.voucherHash(v)), beyond);
    }

    function _note(uint256 b, uint256 o, uint256 lane) private {
        bytes16 lease = current[keccak256(abi.encode(b, o, lane))];
        if (lease == 0) return;
        uint256 now_ = escrow.laneOf(people[b], people[o], lease).paid;
        bytes32 key = keyOf(lease, b, o);
        if (now_ > paid[key]) ++payments;
        if (now_ < paid[key]) broken = "paid fell in a batch";
        if (now_ > signed[key]) broken = "paid more than signed in a batch";
        paid[key] = now_;
    }

    function close(uint256 seed) external {
        (uint256 b, uint256 o, uint256 lane) = _pick(mix(seed, 1e9));
        bytes16 lease = current[keccak256(abi.encode(b, o, lane))];
        if (mix(seed, 1) == 0) {
            vm.prank(people[b]);
            try escrow.release(people[o], lease) {
                ++releases;
            } catch {}
        } else {
            vm.prank(people[o]);
            escrow.close(people[b], lease);
        }
    }

    function refund(uint256 seed) external {
        (uint256 b, uint256 o, uint256 lane) = _pick(mix(seed, 1e9));
        bytes16 lease = current[keccak256(abi.encode(b, o, lane))];
        if (escrow.laneOf(people[b], people[o], lease).paid == 0) return;
        uint64 micros = uint64(mix(seed, 2e8));
        vm.prank(people[o]);
        try escrow.refund(people[b], people[o], lease, micros, "") {
            ++refunds;
            paid[keyOf(lease, b, o)] = escrow.laneOf(people[b], people[o], lease).paid;
        } catch {}
    }

    function leave(uint256 seed) external {
        address account = people[mix(seed, PEOPLE - 1)];
        (uint256 balance,,,,) = escrow.accountOf(account);
        bool take = mix(seed, 1) == 0;
        uint256 amount = mix(seed, balance);
        vm.startPrank(account);
        if (take) {
            uint256 before = ath.balanceOf(address(0xD0));
            try escrow.withdraw(address(0xD0)) {
                withdrawn += ath.balanceOf(address(0xD0)) - before;
            } catch {}
        } else {
            escrow.thaw(amount);
        }
        vm.stopPrank();
    }

    function sweep() external {
        uint256 before = ath.balanceOf(treasury);
        try escrow.sweepFees() {} catch {}
        withdrawn += ath.balanceOf(treasury) - before;
    }

    function price(uint256 seed) external {
        oracle.set(2e16 + mix(seed, 18e16));
    }

    function time(uint256 seed) external {
        vm.warp(block.timestamp + 1 + mix(seed, 12 hours));
    }
}

/// Money is conserved, whatever anybody does in whatever order.
contract EscrowInvariants is T {
    Ath internal ath;
    Escrow internal escrow;
    EscrowHandler internal handler;

    function setUp() public {
        vm.warp(1_800_000_000);
        ath = new Ath(address(this));
        FixedOracle oracle = new FixedOracle(0.05e18);
        AccessManager manager = new AccessManager(address(this));
        escrow = new Escrow(IERC20(address(ath)), oracle, address(0x7EA), address(manager));
        handler = new EscrowHandler(escrow, ath, oracle);
        ath.transfer(address(handler), ath.totalSupply());
        for (uint256 i; i < 8; ++i) {
            handler.deposit(i);
            handler.reserve(i);
        }
        target(address(handler));
    }

    function invariant_accounts_sum_to_the_tokens_here() public view {
        (uint256 sum,,,,) = escrow.accountOf(address(0x7EA));
        for (uint256 i; i < 4; ++i) {
            (uint256 balance,,,,) = escrow.accountOf(handler.people(i));
            sum += balance;
        }
        vm.assertEq(sum, ath.balanceOf(address(escrow)));
        vm.assertEq(sum, handler.deposited() - handler.withdrawn());
    }

    function invariant_held_is_the_sum_of_open_lanes() public view {
        for (uint256 b; b < 4; ++b) {
            address buyer = handler.people(b);
            uint256 sum;
            for (uint256 i; i < 8; ++i) {
                bytes16 lease = handler.current(keccak256(abi.encode(b, i / 2, i % 2)));
                if (lease == 0) continue;
                IEscrow.Lane memory lane = escrow.laneOf(buyer, handler.people(i / 2), lease);
                if (lane.open) sum += lane.held;
            }
            (uint256 balance, uint256 held,,,) = escrow.accountOf(buyer);
            vm.assertEq(held, sum);
            vm.assertLe(held, balance);
        }
    }

    function invariant_a_voucher_is_paid_once_and_never_above_what_was_signed() public view {
        vm.assertEq(bytes(handler.broken()).length, 0, handler.broken());
        for (uint256 i; i < handler.leasesCount(); ++i) {
            bytes32 lease = handler.leases(i);
            vm.assertLe(handler.paid(lease), handler.signed(lease));
        }
    }
}
