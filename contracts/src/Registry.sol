// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";

import {ICheckerLicense} from "./interfaces/ICheckerLicense.sol";
import {IRegistry} from "./interfaces/IRegistry.sol";

/// @title Who is in the network: hosts and their containers, indexers, checkers.
/// @notice Ids hold their owner, so that nobody can take another's place by registering its node
/// key first; whether a node answers to its owner is what verification finds out. A change of a
/// container's fingerprint sets it back to unverified and unstaked.
contract Registry is IRegistry, AccessManaged {
    /// @notice What is registered under an id.
    enum Kind {
        None,
        Host,
        Container,
        Indexer
    }

    /// @dev Three slots: owner.. | operator | node or fingerprint.
    struct Entry {
        address owner;
        Kind kind;
        bool verified;
        bool retired;
        uint32 class;
        uint32 generation;
        address operator;
        uint48 verifiedAt;
        bytes32 key;
    }

    /// @dev A checker's node and who runs it, by licence.
    struct Checker {
        address runner;
        uint48 since;
        bytes32 node;
    }

    /// @notice The licences of checkers.
    ICheckerLicense public immutable licenses;

    mapping(bytes32 id => Entry) private _entries;
    mapping(bytes32 container => bytes32 host) private _hosts;
    mapping(uint256 licence => Checker) private _checkers;
    mapping(bytes32 id => mapping(address operator => bool)) private _former;

    /// @notice A host was registered.
    event HostRegistered(bytes32 indexed id, address indexed owner, bytes32 indexed node, address operator);
    /// @notice An indexer was registered.
    event IndexerRegistered(
        bytes32 indexed id, address indexed owner, bytes32 indexed node, address operator
    );
    /// @notice A container was registered, unverified.
    event ContainerRegistered(
        bytes32 indexed id, bytes32 indexed host, bytes16 container, uint32 class, bytes32 fingerprint
    );
    /// @notice A container is another machine; it must be verified and staked for anew.
    event FingerprintChanged(bytes32 indexed id, uint32 class, bytes32 fingerprint, uint32 generation);
    /// @notice A container or an indexer is what it says.
    event Verified(bytes32 indexed id, uint32 generation);
    /// @notice A verification was taken back.
    event Unverified(bytes32 indexed id, bytes32 evidence);
    /// @notice The key that is paid and that acts changed.
    event OperatorSet(bytes32 indexed id, address operator);
    /// @notice Its owner took it out for good.
    event Retired(bytes32 indexed id);
    /// @notice A checker's node was set.
    event CheckerSet(uint256 indexed licence, address indexed runner, bytes32 indexed node);

    /// @notice It is registered already.
    error Exists();
    /// @notice Not its owner, or not of this kind.
    error NotOwner();
    /// @notice A number or key is out of its bounds.
    error Range();
    /// @notice The fingerprint is another than the one that was verified.
    error Outdated();
    /// @notice The licence is not run by the sender, or banned.
    error NotRunner();

    /// @param authority_ the access manager
    /// @param licenses_ the licences of checkers
    constructor(address authority_, ICheckerLicense licenses_) AccessManaged(authority_) {
        licenses = licenses_;
    }

    /// @notice Registers a host of the sender.
    /// @param node its node key (ed25519)
    /// @param operator the account that is paid for its leases
    function registerHost(bytes32 node, address operator) external returns (bytes32 id) {
        id = nodeId(msg.sender, node);
        _register(id, Kind.Host, 0, operator, node);
        emit HostRegistered(id, msg.sender, node, operator);
    }

    /// @notice Registers an indexer of the sender. It works once it is verified and staked for.
    function registerIndexer(bytes32 node, address operator) external returns (bytes32 id) {
        id = nodeId(msg.sender, node);
        _register(id, Kind.Indexer, 0, operator, node);
        emit IndexerRegistered(id, msg.sender, node, operator);
    }

    /// @notice Registers a container of the sender's host, unverified.
    /// @param host the host's id
    /// @param container its id in the network
    /// @param class its class of hardware, not 0
    /// @param fingerprint hash over its network address, processor and GPUs
    function registerContainer(bytes32 host, bytes16 container, uint32 class, bytes32 fingerprint)
        external
        returns (bytes32 id)
    {
        Entry storage h = _owned(host);
        if (h.kind != Kind.Host) revert NotOwner();
        if (class == 0) revert Range();
        id = containerId(host, container);
        _register(id, Kind.Container, class, h.operator, fingerprint);
        _hosts[id] = host;
        emit ContainerRegistered(id, host, container, class, fingerprint);
    }

    /// @notice Says that a container's hardware changed. It must be verified and staked for anew.
    function setFingerprint(bytes32 id, uint32 class, bytes32 fingerprint) external {
        Entry storage e = _owned(id);
        if (e.kind != Kind.Container) revert NotOwner();
        if (class == 0 || fingerprint == 0 || fingerprint == e.key) revert Range();
        (e.verified, e.class, e.key) = (false, class, fingerprint);
        e.generation += 1;
        emit FingerprintChanged(id, class, fingerprint, e.generation);
    }

    /// @notice Sets the key that is paid and that acts.
    function setOperator(bytes32 id, address operator) external {
        if (operator == address(0)) revert Range();
        Entry storage e = _owned(id);
        _former[id][e.operator] = true;
        e.operator = operator;
        emit OperatorSet(id, operator);
    }

    /// @notice Takes an entry out for good. Its stake can then be unbonded as any other.
    function retire(bytes32 id) external {
        Entry storage e = _owned(id);
        (e.retired, e.verified) = (true, false);
        emit Retired(id);
    }

    /// @notice Confirms a container or an indexer, by the verifier role.
    /// @param key the fingerprint (or node key) that was found
    /// @param generation the one that was looked at; another one reverts, so that what changed in
    /// between, the class too, is not confirmed
    function verify(bytes32 id, bytes32 key, uint32 generation) external restricted {
        Entry storage e = _entries[id];
        if (e.retired || (e.kind != Kind.Container && e.kind != Kind.Indexer)) revert Range();
        if (e.key != key || e.generation != generation) revert Outdated();
        (e.verified, e.verifiedAt) = (true, uint48(block.timestamp));
        emit Verified(id, e.generation);
    }

    /// @notice Takes a verification back, by the verifier role.
    function unverify(bytes32 id, bytes32 evidence) external restricted {
        _entries[id].verified = false;
        emit Unverified(id, evidence);
    }

    /// @notice Sets the node that checks under a licence, by who runs the licence.
    function setChecker(uint256 licence, bytes32 node) external {
        if (licenses.runnerOf(licence) != msg.sender) revert NotRunner();
        if (node == 0) revert Range();
        _checkers[licence] = Checker(msg.sender, uint48(block.timestamp), node);
        emit CheckerSet(licence, msg.sender, node);
    }

    /// @notice The node that checks under a licence; 0 if there is none, the licence is banned or
    /// has another runner since.
    function checkerOf(uint256 licence) external view returns (bytes32 node, address runner) {
        Checker storage c = _checkers[licence];
        runner = licenses.runnerOf(licence);
        return runner != address(0) && runner == c.runner ? (c.node, runner) : (bytes32(0), address(0));
    }

    /// @inheritdoc IRegistry
    function subjectOf(bytes32 id) external view returns (Subject memory) {
        Entry storage e = _entries[id];
        bool staked = e.kind == Kind.Container || e.kind == Kind.Indexer;
        return Subject(staked ? e.owner : address(0), e.class, e.generation, e.verified);
    }

    /// @inheritdoc IRegistry
    function isOperatorOf(bytes32 id, address operator) external view returns (bool) {
        return operator != address(0) && (_isOrWas(id, operator) || _isOrWas(_hosts[id], operator));
    }

    /// @notice Everything about an entry.
    function entryOf(bytes32 id) external view returns (Entry memory) {
        return _entries[id];
    }

    /// @notice The host of a container.
    function hostOf(bytes32 container) external view returns (bytes32) {
        return _hosts[container];
    }

    /// @notice The id of an owner's host or indexer.
    function nodeId(address owner, bytes32 node) public pure returns (bytes32) {
        return keccak256(abi.encode(owner, node));
    }

    /// @notice The id of a host's container.
    function containerId(bytes32 host, bytes16 container) public pure returns (bytes32) {
        return keccak256(abi.encode(host, container));
    }

    function _register(bytes32 id, Kind kind, uint32 class, address operator, bytes32 key) private {
        if (operator == address(0) || key == 0) revert Range();
        Entry storage e = _entries[id];
        if (e.kind != Kind.None) revert Exists();
        (e.owner, e.kind, e.class, e.operator, e.key) = (msg.sender, kind, class, operator, key);
    }

    function _isOrWas(bytes32 id, address operator) private view returns (bool) {
        return _entries[id].operator == operator || _former[id][operator];
    }

    function _owned(bytes32 id) private view returns (Entry storage e) {
        e = _entries[id];
        if (e.owner != msg.sender || e.retired) revert NotOwner();
    }
}
