// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {AccessManager} from "@openzeppelin/contracts/access/manager/AccessManager.sol";
import {IVotes} from "@openzeppelin/contracts/governance/utils/IVotes.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {Ath} from "../src/Ath.sol";
import {CheckerLicense} from "../src/CheckerLicense.sol";
import {Emissions} from "../src/Emissions.sol";
import {Escrow} from "../src/Escrow.sol";
import {Registry} from "../src/Registry.sol";
import {Rewards} from "../src/Rewards.sol";
import {Slashing} from "../src/Slashing.sol";
import {Staking} from "../src/Staking.sol";
import {Treasury} from "../src/Treasury.sol";
import {WelkinGovernor} from "../src/WelkinGovernor.sol";
import {IEmissions} from "../src/interfaces/IEmissions.sol";
import {Committee} from "../src/rewards/Committee.sol";
import {FixedOracle} from "./Mocks.sol";
import {T} from "./T.sol";

/// The whole network as it is deployed: all contracts, all roles. This test contract holds every
/// role but the admin's at first, and a billion ATH of the ecosystem's share.
abstract contract Network is T {
    uint64 internal constant VERIFIER = 1;
    uint64 internal constant PROPOSER = 2;
    uint64 internal constant COURT = 3;
    uint64 internal constant SLASHER = 4;
    uint64 internal constant REFUNDER = 5;
    uint64 internal constant EMITTER = 6;
    uint64 internal constant GUARDIAN = 7;
    uint64 internal constant BANNER = 8;

    uint256 internal constant NOW = 1_800_000_000;
    uint256 internal constant PRICE = 0.05e18;
    uint256 internal constant BUYER = 0xB0B;
    uint256 internal constant OPERATOR = 0x0B;
    uint256 internal constant MEMBER = 0xC0;

    AccessManager internal manager;
    Ath internal ath;
    FixedOracle internal oracle;
    Treasury internal treasury;
    Emissions internal emissions;
    CheckerLicense internal licenses;
    Registry internal registry;
    Staking internal staking;
    Escrow internal escrow;
    Rewards internal rewards;
    Slashing internal slashing;
    WelkinGovernor internal governor;

    address internal buyer = vm.addr(BUYER);
    address internal operator = vm.addr(OPERATOR);
    address internal owner = address(0x0123);
    bytes32 internal host;
    bytes32 internal container;

    function setUp() public virtual {
        vm.warp(NOW);
        manager = new AccessManager(address(this));
        oracle = new FixedOracle(PRICE);
        address[] memory none = new address[](0);
        address[] memory all = new address[](1);
        treasury = new Treasury(2 days, none, all, address(this));
        _deployToken();
        IERC20 token = IERC20(address(ath));
        licenses =
            new CheckerLicense(token, oracle, address(treasury), address(manager), uint48(NOW + 365 days));
        registry = new Registry(address(manager), licenses);
        staking = new Staking(token, registry, oracle, address(manager));
        escrow = new Escrow(token, oracle, address(treasury), address(manager));
        rewards = new Rewards(token, emissions, address(treasury), address(manager), _members(3), 2);
        slashing =
            new Slashing(token, registry, staking, rewards, escrow, address(treasury), address(manager));
        WelkinGovernor.Settings memory s = WelkinGovernor.Settings(1 days, 5 days, 2 days, 100_000e18, 4);
        governor = new WelkinGovernor(IVotes(address(ath)), IVotes(address(staking)), treasury, s);
        treasury.grantRole(treasury.PROPOSER_ROLE(), address(governor));
        treasury.grantRole(treasury.CANCELLER_ROLE(), address(governor));
        treasury.renounceRole(treasury.DEFAULT_ADMIN_ROLE(), address(this));
        _roles();
        _first();
    }

    function _deployToken() private {
        ath = new Ath(address(this));
        address t = address(treasury);
        Emissions.Recipients memory r =
            Emissions.Recipients(address(11), address(12), t, address(this), address(15), address(16));
        emissions = new Emissions(IERC20(address(ath)), oracle, address(manager), r, NOW, 5_000_000);
        ath.transfer(address(emissions), ath.totalSupply());
        emissions.distribute();
    }

    function _roles() private {
        _allow(VERIFIER, address(registry), Registry.verify.selector, address(this));
        _allow(VERIFIER, address(registry), Registry.unverify.selector, address(this));
        _allow(PROPOSER, address(slashing), Slashing.open.selector, address(this));
        _allow(COURT, address(slashing), Slashing.decide.selector, address(this));
        _allow(COURT, address(slashing), Slashing.refund.selector, address(this));
        _allow(COURT, address(rewards), Rewards.decide.selector, address(this));
        _allow(COURT, address(licenses), CheckerLicense.decide.selector, address(this));
        _allow(SLASHER, address(staking), Staking.slash.selector, address(slashing));
        _allow(SLASHER, address(rewards), Rewards.forfeit.selector, address(slashing));
        _allow(REFUNDER, address(escrow), Escrow.refund.selector, address(slashing));
        _allow(EMITTER, address(emissions), Emissions.draw.selector, address(rewards));
        _allow(EMITTER, address(emissions), Emissions.advance.selector, address(rewards));
        _allow(GUARDIAN, address(escrow), escrow.pause.selector, address(this));
        _allow(GUARDIAN, address(escrow), escrow.unpause.selector, address(this));
        _allow(BANNER, address(licenses), CheckerLicense.suspend.selector, address(this));
    }

    function _allow(uint64 role, address on, bytes4 selector, address who) private {
        bytes4[] memory one = new bytes4[](1);
        one[0] = selector;
        manager.setTargetFunctionRole(on, one, role);
        manager.grantRole(role, who, 0);
    }

    /// The first class, rules, host and money.
    function _first() private {
        staking.setClass(1, Staking.Class(100e18, 0, false));
        staking.setCoefficient(1334.22e18);
        uint16[] memory codes = new uint16[](2);
        Slashing.Rule[] memory rules = new Slashing.Rule[](2);
        (codes[0], rules[0]) = (1, Slashing.Rule(3_333, 3_333, 10_000, 5_000, 90 days));
        (codes[1], rules[1]) = (2, Slashing.Rule(10_000, 10_000, 10_000, 5_000, 90 days));
        slashing.setRules(codes, rules);
        ath.transfer(owner, 10_000_000e18);
        ath.transfer(buyer, 10_000_000e18);
        ath.approve(address(escrow), type(uint256).max);
        ath.approve(address(staking), type(uint256).max);
        vm.prank(owner);
        ath.approve(address(staking), type(uint256).max);
        vm.startPrank(owner);
        host = registry.registerHost("node", operator);
        container = registry.registerContainer(host, "container", 1, "fingerprint");
        vm.stopPrank();
        registry.verify(container, "fingerprint", 0);
    }

    /// Members' addresses, sorted.
    function _members(uint256 count) internal pure returns (address[] memory sorted) {
        sorted = new address[](count);
        uint256[] memory keys = _memberKeys(count);
        for (uint256 i; i < count; ++i) {
            sorted[i] = vm.addr(keys[i]);
        }
    }

    /// Members' keys, in the order of their addresses.
    function _memberKeys(uint256 count) internal pure returns (uint256[] memory keys) {
        keys = new uint256[](count);
        for (uint256 i; i < count; ++i) {
            uint256 j = i;
            uint256 key = MEMBER + i;
            for (; j > 0 && vm.addr(keys[j - 1]) > vm.addr(key); --j) {
                keys[j] = keys[j - 1];
            }
            keys[j] = key;
        }
    }

    function _epoch(uint32 number, bytes32 root, uint256 hosts, uint256 checkers, uint256 indexers)
        internal
        pure
        returns (Committee.Epoch memory)
    {
        return Committee.Epoch(number, root, "leaves", [hosts, checkers, indexers], 1_000);
    }

    function _signed(Committee.Epoch memory e, uint256 count)
        internal
        view
        returns (bytes[] memory signatures)
    {
        bytes32 digest = rewards.epochHash(e);
        uint256[] memory keys = _memberKeys(3);
        signatures = new bytes[](count);
        for (uint256 i; i < count; ++i) {
            signatures[i] = abi.encodePacked(vm.addr(keys[i]), sig(keys[i], digest));
        }
    }

    /// Lets an epoch count, after its window.
    function _count(Committee.Epoch memory e) internal {
        uint256 end = emissions.epochEnd(e.number);
        if (block.timestamp < end) vm.warp(end);
        rewards.propose(e, _signed(e, 2));
        vm.warp(block.timestamp + 1 days);
        rewards.accept();
    }

    function _leaf(address account, uint8 stream, uint256 total) internal pure returns (bytes32) {
        return keccak256(bytes.concat(keccak256(abi.encode(account, stream, total))));
    }

    /// A root over `leaf` and the proof of it, of any depth.
    function _tree(bytes32 leaf, uint256 depth) internal pure returns (bytes32 root, bytes32[] memory proof) {
        proof = new bytes32[](depth);
        root = leaf;
        for (uint256 i; i < depth; ++i) {
            proof[i] = keccak256(abi.encode(i, depth));
            root = root < proof[i]
                ? keccak256(bytes.concat(root, proof[i]))
                : keccak256(bytes.concat(proof[i], root));
        }
    }

    function _stake(uint256 amount) internal {
        vm.prank(owner);
        staking.stake(container, amount);
    }
}
