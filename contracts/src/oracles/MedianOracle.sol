// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {IPriceOracle} from "../interfaces/IPriceOracle.sol";
import {Money} from "../libraries/Money.sol";

/// @title The median of what bonded reporters say ATH costs.
/// @notice The median of fresh reports is kept in one slot, so that reading the price costs one
/// load. Between two updates it moves by a bounded share; a lone liar moves it nowhere while most
/// reporters are honest.
contract MedianOracle is IPriceOracle, AccessManaged {
    using SafeCast for uint256;
    using SafeERC20 for IERC20;

    /// @notice Bounds of what is accepted.
    struct Limits {
        /// Seconds after which a report and the price are stale.
        uint32 maxAge;
        /// Least seconds between two updates of the price.
        uint32 interval;
        /// How far the price moves per interval at most, in basis points.
        uint16 deviationBps;
        /// Least fresh reports for a median.
        uint8 minReports;
    }

    /// @dev Three slots.
    struct Reporter {
        bool admitted;
        uint48 leaveAt;
        uint128 bond;
        uint128 price;
        uint48 at;
    }

    /// @notice The most reporters.
    uint256 public constant REPORTERS_MAX = 15;
    /// @notice How long a bond stays slashable after its reporter left.
    uint256 public constant LEAVE_PERIOD = 14 days;
    /// @notice No single slash takes more than this share of a bond.
    uint256 public constant SLASH_MAX_BPS = 5_000;

    /// @notice What bonds are in.
    IERC20 public immutable token;
    /// @notice Who receives what is slashed.
    address public immutable treasury;
    /// @notice What a reporter must have bonded to be heard.
    uint128 public immutable bond;

    // One slot, read on each payment.
    uint128 private _price;
    uint48 private _updatedAt;
    uint32 private _maxAge;
    uint32 private _interval;
    uint16 private _deviationBps;

    uint8 private _minReports;
    address[] private _reporters;
    mapping(address reporter => Reporter) private _of;

    /// @notice A reporter was admitted.
    event Admitted(address indexed reporter);
    /// @notice A reporter was removed; its bond thaws.
    event Removed(address indexed reporter, uint64 bondUntil);
    /// @notice A bond was paid in.
    event Bonded(address indexed reporter, uint256 total);
    /// @notice A bond was taken out.
    event BondWithdrawn(address indexed reporter, uint256 amount);
    /// @notice A part of a bond went to the treasury.
    event BondSlashed(address indexed reporter, uint256 amount, bytes32 evidence);
    /// @notice A reporter spoke.
    event Reported(address indexed reporter, uint256 price);
    /// @notice The price moved.
    event PriceSet(uint256 price, uint256 median);
    /// @notice Limits changed.
    event LimitsSet(uint32 maxAge, uint32 interval, uint16 deviationBps, uint8 minReports);

    /// @notice Not a reporter with its full bond.
    error NotReporter();
    /// @notice A number is out of its bounds.
    error Range();
    /// @notice Not before `at`.
    error NotYet(uint64 at);

    /// @param token_ what bonds are in
    /// @param treasury_ who receives what is slashed
    /// @param authority_ the access manager
    /// @param bond_ what each reporter bonds; 0 on a local network
    /// @param limits_ see [`Limits`]
    /// @param reporters_ the first reporters
    constructor(
        IERC20 token_,
        address treasury_,
        address authority_,
        uint128 bond_,
        Limits memory limits_,
        address[] memory reporters_
    ) AccessManaged(authority_) {
        if (treasury_ == address(0)) revert Range();
        (token, treasury, bond) = (token_, treasury_, bond_);
        _setLimits(limits_);
        for (uint256 i; i < reporters_.length; ++i) {
            _admit(reporters_[i]);
        }
    }

    /// @notice Says what ATH costs; the price follows if it is time and enough reports are fresh.
    /// @param value USD per ATH, 18 decimals
    function report(uint256 value) external {
        Reporter storage r = _of[msg.sender];
        if (!r.admitted || r.bond < bond) revert NotReporter();
        if (value == 0) revert Range();
        (r.price, r.at) = (value.toUint128(), uint48(block.timestamp));
        emit Reported(msg.sender, value);
        _update();
    }

    /// @notice Adds to a reporter's bond.
    function postBond(address reporter, uint128 amount) external {
        Reporter storage r = _of[reporter];
        if (!r.admitted) revert NotReporter();
        r.bond += amount;
        emit Bonded(reporter, r.bond);
        token.safeTransferFrom(msg.sender, address(this), amount);
    }

    /// @notice The sender stops reporting; its bond can be withdrawn after [`LEAVE_PERIOD`].
    function leave() external {
        _remove(msg.sender);
    }

    /// @notice Takes the sender's thawed bond.
    function withdrawBond() external {
        Reporter storage r = _of[msg.sender];
        if (r.admitted || r.leaveAt == 0) revert NotReporter();
        if (r.leaveAt > block.timestamp) revert NotYet(r.leaveAt);
        uint256 amount = r.bond;
        delete _of[msg.sender];
        emit BondWithdrawn(msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    /// @notice Admits a reporter.
    function addReporter(address reporter) external restricted {
        _admit(reporter);
    }

    /// @notice Removes a reporter; its bond thaws.
    function removeReporter(address reporter) external restricted {
        _remove(reporter);
    }

    /// @notice Takes a part of a bond, at most half of it at once, to the treasury. Also of a
    /// reporter that has left and not withdrawn.
    function slash(address reporter, uint128 amount, bytes32 evidence) external restricted {
        Reporter storage r = _of[reporter];
        if (amount == 0 || amount > Money.share(r.bond, SLASH_MAX_BPS)) revert Range();
        r.bond -= amount;
        emit BondSlashed(reporter, amount, evidence);
        token.safeTransfer(treasury, amount);
    }

    /// @notice Sets the limits.
    function setLimits(Limits calldata limits_) external restricted {
        _setLimits(limits_);
    }

    /// @inheritdoc IPriceOracle
    function price() external view returns (uint256) {
        if (_price == 0 || block.timestamp > uint256(_updatedAt) + _maxAge) revert Stale(_updatedAt);
        return _price;
    }

    /// @inheritdoc IPriceOracle
    function priceAt() external view returns (uint256, uint256) {
        if (_price == 0 || block.timestamp > uint256(_updatedAt) + _maxAge) revert Stale(_updatedAt);
        return (_price, _updatedAt);
    }

    /// @notice The reporters.
    function reporters() external view returns (address[] memory) {
        return _reporters;
    }

    /// @notice How a reporter stands.
    function reporterOf(address reporter) external view returns (Reporter memory) {
        return _of[reporter];
    }

    /// @notice The limits.
    function limits() external view returns (Limits memory) {
        return Limits(_maxAge, _interval, _deviationBps, _minReports);
    }

    function _update() private {
        uint256 last = _updatedAt;
        if (_price != 0 && block.timestamp < last + _interval) return;
        (uint256[] memory fresh, uint256 count) = _fresh();
        if (count < _minReports) return;
        uint256 median =
            count % 2 == 1 ? fresh[count / 2] : Math.average(fresh[count / 2 - 1], fresh[count / 2]);
        uint256 next = _price == 0 ? median : _bounded(_price, median, block.timestamp - last);
        (_price, _updatedAt) = (next.toUint128(), uint48(block.timestamp));
        emit PriceSet(next, median);
    }

    /// @dev Moves from `old` towards `median`, by at most the deviation for each interval passed.
    function _bounded(uint256 old, uint256 median, uint256 passed) private view returns (uint256) {
        uint256 steps = _interval == 0 ? 1 : Math.max(1, passed / _interval);
        uint256 most = Math.max(1, Money.share(old, uint256(_deviationBps) * steps));
        if (median > old) return Math.min(median, old + most);
        return most >= old ? median : Math.max(median, old - most);
    }

    /// @dev The fresh reports, sorted upwards; there are at most 15.
    function _fresh() private view returns (uint256[] memory fresh, uint256 count) {
        uint256 n = _reporters.length;
        fresh = new uint256[](n);
        for (uint256 i; i < n; ++i) {
            Reporter storage r = _of[_reporters[i]];
            if (r.at == 0 || r.bond < bond || block.timestamp > uint256(r.at) + _maxAge) continue;
            uint256 value = r.price;
            uint256 j = count++;
            for (; j > 0 && fresh[j - 1] > value; --j) {
                fresh[j] = fresh[j - 1];
            }
            fresh[j] = value;
        }
    }

    function _admit(address reporter) private {
        Reporter storage r = _of[reporter];
        if (reporter == address(0) || r.admitted || _reporters.length == REPORTERS_MAX) revert Range();
        (r.admitted, r.leaveAt, r.at) = (true, 0, 0);
        _reporters.push(reporter);
        emit Admitted(reporter);
    }

    function _remove(address reporter) private {
        Reporter storage r = _of[reporter];
        if (!r.admitted) revert NotReporter();
        (r.admitted, r.leaveAt) = (false, uint48(block.timestamp + LEAVE_PERIOD));
        uint256 n = _reporters.length;
        for (uint256 i; i < n; ++i) {
            if (_reporters[i] != reporter) continue;
            _reporters[i] = _reporters[n - 1];
            _reporters.pop();
            break;
        }
        emit Removed(reporter, r.leaveAt);
    }

    function _setLimits(Limits memory l) private {
        if (l.maxAge == 0 || l.interval > l.maxAge || l.deviationBps == 0) revert Range();
        if (l.minReports == 0 || l.minReports > REPORTERS_MAX) revert Range();
        (_maxAge, _interval, _deviationBps, _minReports) =
        (l.maxAge, l.interval, l.deviationBps, l.minReports);
        emit LimitsSet(l.maxAge, l.interval, l.deviationBps, l.minReports);
    }
}
