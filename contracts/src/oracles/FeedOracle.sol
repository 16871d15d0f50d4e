// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";

import {AggregatorV3Interface} from "../interfaces/AggregatorV3Interface.sol";
import {IPriceOracle} from "../interfaces/IPriceOracle.sol";

/// @title A price feed of Chainlink's shape, believed within bounds.
/// @notice Halts while the answer is old or out of bounds, and on a rollup while its sequencer is
/// down or has just come back.
contract FeedOracle is IPriceOracle, AccessManaged {
    /// @notice What is believed.
    /// @param least the lowest price, USD per ATH with 18 decimals
    /// @param most the highest price
    /// @param maxAge seconds after which an answer is stale
    /// @param grace seconds to wait after the sequencer came back
    struct Bounds {
        uint128 least;
        uint128 most;
        uint32 maxAge;
        uint32 grace;
    }

    /// @notice The feed.
    AggregatorV3Interface public immutable feed;
    /// @notice The uptime feed of the rollup's sequencer; zero where there is none.
    AggregatorV3Interface public immutable sequencer;
    /// @notice What is believed.
    Bounds public bounds;

    uint256 private immutable _scale;

    /// @notice Bounds changed.
    event BoundsSet(uint128 least, uint128 most, uint32 maxAge, uint32 grace);

    /// @notice A number is out of its bounds.
    error Range();
    /// @notice The answer is not believed.
    error Unbelievable(int256 answer);
    /// @notice The sequencer is down, or has been up since `since` only.
    error SequencerDown(uint256 since);

    /// @param feed_ the feed, of at most 18 decimals
    /// @param sequencer_ the sequencer's uptime feed, or zero
    /// @param authority_ the access manager
    /// @param bounds_ what is believed
    constructor(
        AggregatorV3Interface feed_,
        AggregatorV3Interface sequencer_,
        address authority_,
        Bounds memory bounds_
    ) AccessManaged(authority_) {
        (feed, sequencer) = (feed_, sequencer_);
        uint256 decimals = feed_.decimals();
        if (decimals > 18) revert Range();
        _scale = 10 ** (18 - decimals);
        _setBounds(bounds_);
    }

    /// @notice Sets what is believed.
    function setBounds(Bounds calldata bounds_) external restricted {
        _setBounds(bounds_);
    }

    /// @inheritdoc IPriceOracle
    function price() external view returns (uint256 value) {
        (value,) = priceAt();
    }

    /// @inheritdoc IPriceOracle
    function priceAt() public view returns (uint256 value, uint256 updatedAt) {
        Bounds memory b = bounds;
        if (address(sequencer) != address(0)) {
            (, int256 down, uint256 since,,) = sequencer.latestRoundData();
            if (down != 0 || since == 0 || block.timestamp < since + b.grace) revert SequencerDown(since);
        }
        int256 answer;
        (, answer,, updatedAt,) = feed.latestRoundData();
        if (updatedAt > block.timestamp || block.timestamp - updatedAt > b.maxAge) revert Stale(updatedAt);
        if (answer <= 0 || uint256(answer) > b.most) revert Unbelievable(answer);
        value = uint256(answer) * _scale;
        if (value < b.least || value > b.most) revert Unbelievable(answer);
    }

    function _setBounds(Bounds memory b) private {
        if (b.least == 0 || b.least > b.most || b.maxAge == 0 || b.maxAge > 7 days || b.grace > 7 days) {
            revert Range();
        }
        bounds = b;
        emit BoundsSet(b.least, b.most, b.maxAge, b.grace);
    }
}
