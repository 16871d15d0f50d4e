// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Governor} from "@openzeppelin/contracts/governance/Governor.sol";
import {TimelockController} from "@openzeppelin/contracts/governance/TimelockController.sol";
import {
    GovernorCountingSimple
} from "@openzeppelin/contracts/governance/extensions/GovernorCountingSimple.sol";
import {
    GovernorPreventLateQuorum
} from "@openzeppelin/contracts/governance/extensions/GovernorPreventLateQuorum.sol";
import {GovernorSettings} from "@openzeppelin/contracts/governance/extensions/GovernorSettings.sol";
import {
    GovernorTimelockControl
} from "@openzeppelin/contracts/governance/extensions/GovernorTimelockControl.sol";
import {GovernorVotes} from "@openzeppelin/contracts/governance/extensions/GovernorVotes.sol";
import {
    GovernorVotesQuorumFraction
} from "@openzeppelin/contracts/governance/extensions/GovernorVotesQuorumFraction.sol";
import {IVotes} from "@openzeppelin/contracts/governance/utils/IVotes.sol";

/// @title Decisions by who holds or stakes ATH.
/// @notice An account votes with what was delegated to it of held ATH and of staked ATH together.
/// Staked ATH lies in the staking contract, which delegates to nobody, so nothing counts twice.
/// The quorum is a share of the whole supply. What was decided is executed by the treasury.
contract WelkinGovernor is
    Governor,
    GovernorSettings,
    GovernorCountingSimple,
    GovernorVotes,
    GovernorVotesQuorumFraction,
    GovernorTimelockControl,
    GovernorPreventLateQuorum
{
    /// @notice Numbers of a governor.
    /// @param delay seconds from a proposal to its vote
    /// @param period seconds of a vote
    /// @param lateQuorum seconds that a vote goes on at least after its quorum was reached
    /// @param threshold votes needed to propose
    /// @param quorumPercent of the supply
    struct Settings {
        uint48 delay;
        uint32 period;
        uint48 lateQuorum;
        uint256 threshold;
        uint256 quorumPercent;
    }

    /// @notice Votes of staked ATH.
    IVotes public immutable staking;

    /// @param ath votes of held ATH, and the supply
    /// @param staking_ votes of staked ATH
    /// @param treasury what executes
    /// @param s see [`Settings`]
    constructor(IVotes ath, IVotes staking_, TimelockController treasury, Settings memory s)
        Governor("WelkinGovernor")
        GovernorSettings(s.delay, s.period, s.threshold)
        GovernorVotes(ath)
        GovernorVotesQuorumFraction(s.quorumPercent)
        GovernorTimelockControl(treasury)
        GovernorPreventLateQuorum(s.lateQuorum)
    {
        staking = staking_;
    }

    /// @notice How a proposal stands.
    function state(uint256 id)
        public
        view
        override(Governor, GovernorTimelockControl)
        returns (ProposalState)
    {
        return super.state(id);
    }

    /// @notice Whether a proposal is queued before it is executed: always.
    function proposalNeedsQueuing(uint256 id)
        public
        view
        override(Governor, GovernorTimelockControl)
        returns (bool)
    {
        return super.proposalNeedsQueuing(id);
    }

    /// @notice Votes needed to propose.
    function proposalThreshold() public view override(Governor, GovernorSettings) returns (uint256) {
        return super.proposalThreshold();
    }

    /// @notice When a vote ends; later than planned if its quorum came late.
    function proposalDeadline(uint256 id)
        public
        view
        override(Governor, GovernorPreventLateQuorum)
        returns (uint256)
    {
        return super.proposalDeadline(id);
    }

    function _getVotes(address account, uint256 timepoint, bytes memory params)
        internal
        view
        override(Governor, GovernorVotes)
        returns (uint256)
    {
        return super._getVotes(account, timepoint, params) + staking.getPastVotes(account, timepoint);
    }

    function _tallyUpdated(uint256 id) internal override(Governor, GovernorPreventLateQuorum) {
        super._tallyUpdated(id);
    }

    function _queueOperations(uint256 id, address[] memory t, uint256[] memory v, bytes[] memory d, bytes32 h)
        internal
        override(Governor, GovernorTimelockControl)
        returns (uint48)
    {
        return super._queueOperations(id, t, v, d, h);
    }

    function _executeOperations(
        uint256 id,
        address[] memory t,
        uint256[] memory v,
        bytes[] memory d,
        bytes32 h
    ) internal override(Governor, GovernorTimelockControl) {
        super._executeOperations(id, t, v, d, h);
    }

    function _cancel(address[] memory t, uint256[] memory v, bytes[] memory d, bytes32 h)
        internal
        override(Governor, GovernorTimelockControl)
        returns (uint256)
    {
        return super._cancel(t, v, d, h);
    }

    function _executor() internal view override(Governor, GovernorTimelockControl) returns (address) {
        return super._executor();
    }
}
