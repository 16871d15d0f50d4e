// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ERC721} from "@openzeppelin/contracts/token/ERC721/ERC721.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";

import {ICheckerLicense} from "./interfaces/ICheckerLicense.sol";
import {IPriceOracle} from "./interfaces/IPriceOracle.sol";
import {Leaves} from "./libraries/Leaves.sol";
import {Money} from "./libraries/Money.sol";

/// @title Licences to check: at most 100,000, sold in tiers.
/// @notice An owner lets another key run its licence (ERC-4907) without giving it away. A licence
/// whose checker lied is suspended at once and banned unless its owner appeals with success.
contract CheckerLicense is ICheckerLicense, ERC721, AccessManaged {
    using SafeERC20 for IERC20;

    /// @notice A tier of the sale.
    /// @param price USD micros for each, paid in ATH
    /// @param supply how many there are
    /// @param sold how many were sold
    /// @param most how many an account can buy; an allow-list can say less or more
    /// @param opens when it opens
    /// @param root of the allow-list; 0 if everybody can buy
    struct Tier {
        uint64 price;
        uint32 supply;
        uint32 sold;
        uint32 most;
        uint48 opens;
        bytes32 root;
    }

    /// @notice How a licence stands.
    enum Standing {
        Good,
        Suspended,
        Appealed,
        Banned
    }

    /// @dev Who runs a licence, and until when its standing can change.
    struct Use {
        address user;
        uint48 expires;
    }

    /// @dev A ban under way. Without an appeal it is final at `until`; with one it lapses then.
    struct Ban {
        Standing standing;
        uint48 until;
    }

    /// @notice How many licences there can be.
    uint256 public constant CAP = 100_000;
    /// @notice How long an owner can appeal.
    uint256 public constant APPEAL_WINDOW = 14 days;
    /// @notice How long the court has to decide; then the licence is good again.
    uint256 public constant COURT_TERM = 30 days;
    /// @notice The most licences that one purchase can be.
    uint256 public constant BATCH_MAX = 50;

    /// @notice ATH.
    IERC20 public immutable token;
    /// @notice Who receives the price.
    address public immutable treasury;
    /// @notice From when licences can be transferred.
    uint48 public immutable transferableFrom;

    /// @notice How many licences there are; the last one's number.
    uint256 public minted;
    /// @notice The tiers of the sale.
    Tier[] public tiers;
    /// @notice How many an account bought in a tier.
    mapping(uint256 tier => mapping(address account => uint256)) public bought;
    /// @notice USD per ATH.
    IPriceOracle public oracle;

    mapping(uint256 licence => Use) private _uses;
    mapping(uint256 licence => Ban) private _bans;

    /// @notice A tier was added or changed.
    event TierSet(uint256 indexed tier, uint64 price, uint32 supply, uint32 most, uint48 opens, bytes32 root);
    /// @notice Licences were sold.
    event Sold(uint256 indexed tier, address indexed account, uint256 first, uint256 count, uint256 paid);
    /// @notice Another key runs a licence until `expires` (ERC-4907).
    event UpdateUser(uint256 indexed tokenId, address indexed user, uint64 expires);
    /// @notice A licence was suspended.
    event Suspended(uint256 indexed licence, bytes32 evidence, uint256 appealUntil);
    /// @notice Its owner appeals.
    event Appealed(uint256 indexed licence, bytes32 statement);
    /// @notice The oracle changed.
    event OracleSet(address oracle);
    /// @notice The court decided, or the owner did not appeal.
    event Decided(uint256 indexed licence, bool banned);

    /// @notice A number is out of its bounds.
    error Range();
    /// @notice None left, or more than the account can buy.
    error SoldOut();
    /// @notice Not before `at`.
    error NotYet(uint256 at);
    /// @notice Not on the allow-list.
    error NotAllowed();
    /// @notice It costs more than the buyer said.
    error TooDear(uint256 cost);
    /// @notice It cannot be transferred yet, or while it is not in good standing.
    error Locked();
    /// @notice Not at this standing.
    error WrongStanding();

    /// @param token_ ATH
    /// @param oracle_ USD per ATH
    /// @param treasury_ who receives the price
    /// @param authority_ the access manager
    /// @param transferableFrom_ from when licences can be transferred
    constructor(
        IERC20 token_,
        IPriceOracle oracle_,
        address treasury_,
        address authority_,
        uint48 transferableFrom_
    ) ERC721("Welkin Checker License", "WCL") AccessManaged(authority_) {
        (token, oracle, treasury, transferableFrom) = (token_, oracle_, treasury_, transferableFrom_);
    }

    /// @notice Buys licences of a tier.
    /// @param most how many the allow-list gives the sender; ignored where there is no list
    /// @param costMax the most ATH wei that they may cost
    function buy(uint256 tier, uint256 count, uint256 costMax, uint256 most, bytes32[] calldata proof)
        external
    {
        Tier storage t = tiers[tier];
        if (count == 0 || count > BATCH_MAX) revert Range();
        if (block.timestamp < t.opens) revert NotYet(t.opens);
        uint256 limit = t.most;
        if (t.root != 0) {
            if (!MerkleProof.verifyCalldata(proof, t.root, Leaves.allowed(tier, msg.sender, most))) {
                revert NotAllowed();
            }
            limit = most;
        }
        uint256 had = bought[tier][msg.sender];
        if (t.sold + count > t.supply || had + count > limit || minted + count > CAP) revert SoldOut();
        uint256 cost = t.price == 0 ? 0 : Money.toWei(uint256(t.price) * count, oracle.price());
        if (cost > costMax) revert TooDear(cost);
        bought[tier][msg.sender] = had + count;
        t.sold += uint32(count);
        uint256 first = minted + 1;
        minted += count;
        for (uint256 i; i < count; ++i) {
            _mint(msg.sender, first + i);
        }
        emit Sold(tier, msg.sender, first, count, cost);
        if (cost != 0) token.safeTransferFrom(msg.sender, treasury, cost);
    }

    /// @notice Lets another key run a licence until `expires` (ERC-4907).
    function setUser(uint256 licence, address user, uint64 expires) external {
        _checkAuthorized(_requireOwned(licence), msg.sender, licence);
        if (expires > type(uint48).max) revert Range();
        _uses[licence] = Use(user, uint48(expires));
        emit UpdateUser(licence, user, expires);
    }

    /// @notice Suspends a licence, by the ban role. It is banned if its owner does not appeal.
    function suspend(uint256 licence, bytes32 evidence) external restricted {
        _requireOwned(licence);
        if (evidence == 0 || standingOf(licence) != Standing.Good) revert WrongStanding();
        _bans[licence] = Ban(Standing.Suspended, uint48(block.timestamp + APPEAL_WINDOW));
        emit Suspended(licence, evidence, block.timestamp + APPEAL_WINDOW);
    }

    /// @notice Appeals, by the owner.
    /// @param statement hash of what the owner says
    function appeal(uint256 licence, bytes32 statement) external {
        _checkAuthorized(_requireOwned(licence), msg.sender, licence);
        if (standingOf(licence) != Standing.Suspended) revert WrongStanding();
        _bans[licence] = Ban(Standing.Appealed, uint48(block.timestamp + COURT_TERM));
        emit Appealed(licence, statement);
    }

    /// @notice Decides on a suspended licence, by the court role.
    function decide(uint256 licence, bool banned) external restricted {
        Standing now_ = standingOf(licence);
        if (now_ == Standing.Good || (banned && now_ == Standing.Suspended)) revert WrongStanding();
        _bans[licence] = Ban(banned ? Standing.Banned : Standing.Good, 0);
        emit Decided(licence, banned);
    }

    /// @notice Adds a tier.
    function addTier(Tier calldata tier) external restricted {
        tiers.push(tier);
        _checkTier(tiers.length - 1, tier.sold == 0);
    }

    /// @notice Changes a tier; what was sold stays sold.
    function setTier(uint256 number, Tier calldata tier) external restricted {
        uint32 sold = tiers[number].sold;
        tiers[number] = tier;
        _checkTier(number, tier.sold == sold);
    }

    /// @notice Sets the oracle: a feed can be shut down, and no licence is sold without a price.
    function setOracle(IPriceOracle next) external restricted {
        if (address(next) == address(0)) revert Range();
        oracle = next;
        emit OracleSet(address(next));
    }

    /// @notice Who runs a licence by delegation; zero if nobody does (ERC-4907).
    function userOf(uint256 licence) public view returns (address) {
        Use storage u = _uses[licence];
        return u.expires >= block.timestamp ? u.user : address(0);
    }

    /// @notice Until when the delegation lasts (ERC-4907).
    function userExpires(uint256 licence) external view returns (uint256) {
        return _uses[licence].expires;
    }

    /// @inheritdoc ICheckerLicense
    function runnerOf(uint256 licence) external view returns (address) {
        if (standingOf(licence) != Standing.Good) return address(0);
        address user = userOf(licence);
        return user == address(0) ? _ownerOf(licence) : user;
    }

    /// @notice How a licence stands.
    function standingOf(uint256 licence) public view returns (Standing) {
        Ban storage b = _bans[licence];
        if (block.timestamp <= b.until) return b.standing;
        if (b.standing == Standing.Suspended) return Standing.Banned;
        return b.standing == Standing.Appealed ? Standing.Good : b.standing;
    }

    /// @notice ERC-165, with ERC-4907.
    function supportsInterface(bytes4 id) public view override returns (bool) {
        return id == 0xad092b5c || super.supportsInterface(id);
    }

    /// @dev A transfer ends the delegation.
    function _update(address to, uint256 licence, address auth) internal override returns (address from) {
        from = super._update(to, licence, auth);
        if (from == address(0)) return from;
        if (block.timestamp < transferableFrom || standingOf(licence) != Standing.Good) revert Locked();
        if (_uses[licence].user != address(0)) {
            delete _uses[licence];
            emit UpdateUser(licence, address(0), 0);
        }
    }

    function _checkTier(uint256 number, bool sameSold) private {
        Tier storage t = tiers[number];
        if (!sameSold || t.supply > CAP || t.sold > t.supply || t.price > Money.MAX_MICROS) revert Range();
        emit TierSet(number, t.price, t.supply, t.most, t.opens, t.root);
    }
}
