// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IEmissions} from "./interfaces/IEmissions.sol";
import {IPriceOracle} from "./interfaces/IPriceOracle.sol";
import {Money} from "./libraries/Money.sol";
import {Supply} from "./libraries/Supply.sol";

/// @title Where all ATH begins: the shares of the founding groups, and half for work done.
/// @notice Compute is emitted over ten years, each year 0.603 of the one before. The pool of an
/// epoch (a day) is 0.9 or 1.1 times the last one's, to hold the income of a unit of capacity near
/// a target in USD, and never above the year's cap. Checkers have their share over four years.
/// What is not drawn stays here; after the last year it goes to the treasury.
contract Emissions is IEmissions, AccessManaged {
    using SafeERC20 for IERC20;

    /// @notice Who receives the shares that are not for work.
    struct Recipients {
        address team;
        address investors;
        address treasury;
        address ecosystem;
        address airdrop;
        address advisers;
    }

    /// @notice Hosts' stream.
    uint8 public constant HOSTS = 0;
    /// @notice Checkers' stream.
    uint8 public constant CHECKERS = 1;
    /// @notice Indexers' stream.
    uint8 public constant INDEXERS = 2;
    /// @notice The length of an epoch.
    uint256 public constant EPOCH = 1 days;
    /// @notice Epochs of a year.
    uint256 public constant EPOCHS_A_YEAR = 365;
    /// @notice The share of compute emission that indexers can have.
    uint256 public constant INDEXERS_BPS = 500;
    /// @notice What is emitted for compute in all.
    uint256 public constant COMPUTE = Supply.TOTAL * Supply.COMPUTE_BPS / 10_000;
    /// @notice What is emitted for checkers in all.
    uint256 public constant CHECKER_POOL = Supply.TOTAL * Supply.CHECKERS_BPS / 10_000;

    /// @notice ATH.
    IERC20 public immutable token;
    /// @notice USD per ATH.
    IPriceOracle public oracle;
    /// @notice When the first epoch began.
    uint256 public immutable start;

    /// @inheritdoc IEmissions
    uint32 public epoch;
    /// @notice Whether the founding shares were sent.
    bool public distributed;
    /// @notice What a unit of capacity should earn in an epoch, in USD micros.
    uint64 public target;
    /// @notice The pool of the present epoch.
    uint128 public pool;
    /// @notice The least pool of an epoch; a year's cap goes before it.
    uint128 public poolMin;
    /// @notice All pools until the present epoch.
    uint256 public granted;
    /// @notice What was drawn of a stream.
    mapping(uint8 stream => uint256) public drawn;

    Recipients private _recipients;

    /// @notice The founding shares were sent.
    event Distributed(uint256 kept);
    /// @notice An epoch's pool was granted.
    event Granted(uint32 indexed epoch, uint256 pool, uint256 units);
    /// @notice What was earned was sent out.
    event Drawn(uint256 hosts, uint256 checkers, uint256 indexers);
    /// @notice The controller's target changed.
    event TargetSet(uint64 micros, uint128 poolMin);
    /// @notice The oracle changed.
    event OracleSet(address oracle);
    /// @notice What was left after the last year went to the treasury.
    event Swept(uint256 amount);

    /// @notice A number is out of its bounds.
    error Range();
    /// @notice Not before `at`.
    error NotYet(uint256 at);
    /// @notice A stream has less left than was asked for.
    error OverCap(uint8 stream, uint256 asked, uint256 left);

    /// @param token_ ATH; its whole supply is sent here and [`distribute`] called
    /// @param oracle_ USD per ATH
    /// @param authority_ the access manager
    /// @param recipients_ who receives the founding shares
    /// @param start_ when the first epoch begins
    /// @param target_ what a unit of capacity should earn in an epoch, in USD micros
    constructor(
        IERC20 token_,
        IPriceOracle oracle_,
        address authority_,
        Recipients memory recipients_,
        uint256 start_,
        uint64 target_
    ) AccessManaged(authority_) {
        (token, oracle, start, target) = (token_, oracle_, start_, target_);
        _recipients = recipients_;
        uint256 first = Supply.ofYear(COMPUTE, 0) / EPOCHS_A_YEAR;
        poolMin = uint128(first / 100);
        _grant(1, first, 0);
    }

    /// @notice Sends the founding shares, once the whole supply is here. Anyone may; only once.
    function distribute() external {
        if (distributed || token.balanceOf(address(this)) < Supply.TOTAL) revert Range();
        distributed = true;
        emit Distributed(COMPUTE + CHECKER_POOL);
        Recipients memory r = _recipients;
        _send(r.team, Supply.TEAM_BPS);
        _send(r.investors, Supply.INVESTORS_BPS);
        _send(r.treasury, Supply.TREASURY_BPS);
        _send(r.ecosystem, Supply.ECOSYSTEM_BPS);
        _send(r.airdrop, Supply.AIRDROP_BPS);
        _send(r.advisers, Supply.ADVISERS_BPS);
    }

    /// @inheritdoc IEmissions
    function draw(uint256[3] calldata amounts) external restricted {
        check(amounts);
        uint256 sum;
        for (uint8 stream; stream < 3; ++stream) {
            drawn[stream] += amounts[stream];
            sum += amounts[stream];
        }
        emit Drawn(amounts[0], amounts[1], amounts[2]);
        token.safeTransfer(msg.sender, sum);
    }

    /// @inheritdoc IEmissions
    function advance(uint256 units) external restricted {
        if (block.timestamp < epochEnd(epoch)) revert NotYet(epochEnd(epoch));
        uint32 next = epoch + 1;
        uint256 income = units == 0 ? 0 : Money.toMicros(pool, oracle.price()) / units;
        // Nobody there: the pool shrinks too, since nothing is to be had for it.
        uint256 wanted = units == 0 || income > target ? uint256(pool) * 9 / 10 : uint256(pool) * 11 / 10;
        uint256 cap = Supply.ofYear(COMPUTE, (next - 1) / EPOCHS_A_YEAR) / EPOCHS_A_YEAR;
        if (next > EPOCHS_A_YEAR * Supply.YEARS) cap = 0;
        _grant(next, Math.min(Math.max(wanted, poolMin), cap), units);
    }

    /// @notice Sets what a unit of capacity should earn in an epoch, and the least pool.
    function setTarget(uint64 micros, uint128 poolMin_) external restricted {
        if (micros == 0 || poolMin_ == 0 || poolMin_ > COMPUTE / EPOCHS_A_YEAR / 100) revert Range();
        (target, poolMin) = (micros, poolMin_);
        emit TargetSet(micros, poolMin_);
    }

    /// @notice Sets the oracle: a feed can be shut down, and nothing here goes on without a price.
    function setOracle(IPriceOracle next) external restricted {
        if (address(next) == address(0)) revert Range();
        oracle = next;
        emit OracleSet(address(next));
    }

    /// @notice Sends what is left to the treasury, a year after the last epoch. Anyone may.
    function sweep() external {
        uint256 from = start + EPOCH * EPOCHS_A_YEAR * (Supply.YEARS + 1);
        if (block.timestamp < from) revert NotYet(from);
        uint256 amount = token.balanceOf(address(this));
        emit Swept(amount);
        token.safeTransfer(_recipients.treasury, amount);
    }

    /// @inheritdoc IEmissions
    function check(uint256[3] calldata amounts) public view {
        for (uint8 stream; stream < 3; ++stream) {
            uint256 left = room(stream);
            // Hosts and indexers have one pool together.
            if (stream == HOSTS) left -= Math.min(left, amounts[INDEXERS]);
            if (amounts[stream] > left) revert OverCap(stream, amounts[stream], left);
        }
    }

    /// @inheritdoc IEmissions
    function room(uint8 stream) public view returns (uint256) {
        uint256 cap;
        if (stream == HOSTS) {
            cap = granted - drawn[INDEXERS];
        } else if (stream == INDEXERS) {
            cap = Math.min(Money.share(granted, INDEXERS_BPS), granted - drawn[HOSTS]);
        } else if (stream == CHECKERS && block.timestamp > start) {
            uint256 term = Supply.CHECKER_YEARS * EPOCHS_A_YEAR * EPOCH;
            cap = Math.mulDiv(CHECKER_POOL, Math.min(block.timestamp - start, term), term);
        }
        return cap - drawn[stream];
    }

    /// @inheritdoc IEmissions
    function epochEnd(uint32 number) public view returns (uint256) {
        return start + uint256(number) * EPOCH;
    }

    /// @notice What may be emitted for compute in a year, counted from 0.
    function capOfYear(uint256 year) external pure returns (uint256) {
        return Supply.ofYear(COMPUTE, year);
    }

    function _grant(uint32 number, uint256 amount, uint256 units) private {
        (epoch, pool) = (number, uint128(amount));
        granted += amount;
        emit Granted(number, amount, units);
    }

    function _send(address to, uint256 bps) private {
        token.safeTransfer(to, Money.share(Supply.TOTAL, bps));
    }
}
