// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @title Nouns of the escrow: what is signed, kept, told and refused.
/// @notice USD is in micros (1e-6 USD), ATH in wei. Times in signed orders are milliseconds since
/// 1970; all other times are seconds.
interface IEscrow {
    /// @notice A buyer's order of one container at a locked price.
    struct Order {
        bytes16 lease;
        address buyer;
        address operator;
        bytes32 host;
        bytes16 container;
        uint256 pricePerHour;
        uint256 budget;
        bytes32 task;
        uint64 issued;
        uint64 expires;
    }

    /// @notice A buyer's cumulative promise for one lease; a later one replaces an earlier one.
    struct Voucher {
        bytes16 lease;
        address operator;
        uint256 amount;
        uint64 secondsUsed;
    }

    /// @notice One cumulative promise for many sub-leases, whose sums are the leaves under `root`.
    struct Statement {
        bytes16 lease;
        address operator;
        uint256 amount;
        bytes32 root;
        uint64 leaves;
    }

    /// @notice One entry of a batch.
    struct Redemption {
        address buyer;
        Voucher voucher;
        bytes signature;
        uint64 holdBeyond;
    }

    /// @notice A lease as the contract keeps it. `held` of a closed lane is what was given back.
    struct Lane {
        bytes16 lease;
        uint48 issued;
        bool open;
        uint96 held;
        uint56 paid;
        uint56 budget;
        uint40 active;
    }

    /// @notice Money came in.
    event Deposited(address indexed account, address indexed from, uint256 amount);
    /// @notice An order was taken and `weiHeld` set aside for it.
    event Reserved(
        address indexed buyer,
        address indexed operator,
        bytes16 indexed lease,
        uint256 micros,
        uint256 weiHeld,
        uint256 budget
    );
    /// @notice A payment: `micros` just covered, `total` covered in all, `weiPaid` with the fee in it.
    event Paid(
        address indexed buyer,
        address indexed operator,
        bytes16 indexed lease,
        uint256 micros,
        uint256 total,
        uint256 weiPaid,
        uint256 weiFee
    );
    /// @notice Money was short: `owed` micros stay owed under the same voucher.
    event Short(address indexed buyer, address indexed operator, bytes16 indexed lease, uint256 owed);
    /// @notice More was set aside for a lease; `weiHeld` is aside now.
    event Held(bytes16 indexed lease, uint256 weiHeld);
    /// @notice A statement was redeemed; its payment is told by [`Paid`].
    event StatementRedeemed(
        address indexed buyer, address indexed operator, bytes16 indexed lease, bytes32 root, uint64 leaves
    );
    /// @notice An entry of a batch was passed over; `reason` is the selector of the error.
    event Skipped(uint256 index, bytes4 reason);
    /// @notice A lease ended and what was aside went back to the buyer's free balance.
    event LeaseClosed(
        address indexed buyer, address indexed operator, bytes16 indexed lease, uint256 weiReturned
    );
    /// @notice The buyer ended a lease that its operator had abandoned.
    event Released(
        address indexed buyer, address indexed operator, bytes16 indexed lease, uint256 weiReturned
    );
    /// @notice A payment was given back, the fee with it.
    event Refunded(
        address indexed buyer,
        address indexed operator,
        bytes16 indexed lease,
        uint256 micros,
        uint256 weiOperator,
        uint256 weiTreasury,
        bytes32 reason
    );
    /// @notice A withdrawal was announced (0: called off).
    event Thawing(address indexed account, uint256 amount, uint64 end);
    /// @notice Money went out.
    event Withdrawn(address indexed account, address indexed to, uint256 amount);
    /// @notice Fees went to the treasury.
    event FeesSwept(uint256 amount);
    /// @notice A key may act for an account.
    event SignerSet(address indexed account, address indexed signer, uint64 until, uint256 allowance);
    /// @notice A key may sign no more orders; its vouchers hold until `end`.
    event SignerRevoked(address indexed account, address indexed signer, uint64 end);
    /// @notice The fee changed.
    event FeeSet(uint16 bps);
    /// @notice The time from announcing a withdrawal to taking it changed.
    event ThawPeriodSet(uint32 period);
    /// @notice The time after which a buyer may release an abandoned lease changed.
    event ReleaseGraceSet(uint32 grace);
    /// @notice The margin of reservations changed.
    event HoldMarginSet(uint16 bps);
    /// @notice Another oracle was announced; it can be applied from `from` on.
    event OracleAnnounced(address oracle, uint64 from);
    /// @notice The oracle changed.
    event OracleSet(address oracle);
    /// @notice New reservations stop until `until`.
    event ReservationsPaused(uint64 until);
    /// @notice New reservations go on.
    event ReservationsUnpaused();

    /// @notice More wei is needed than there is.
    error Funds(uint256 needed, uint256 available);
    /// @notice Not signed by whom it should be.
    error Signature();
    /// @notice It was good until `at`.
    error Expired(uint64 at);
    /// @notice A number is out of its bounds.
    error Range();
    /// @notice The lane is in use by another lease.
    error LaneBusy(bytes16 lease);
    /// @notice The lease was closed.
    error Closed();
    /// @notice The lane has taken a later order.
    error Replayed();
    /// @notice The lane does not hold this lease.
    error UnknownLease();
    /// @notice The sender may not act for this operator.
    error NotOperator();
    /// @notice Not before `at`.
    error NotYet(uint64 at);
    /// @notice No new reservations before `until`.
    error Paused(uint64 until);
    /// @notice The token moved another amount than it was asked to.
    error Token();
}
