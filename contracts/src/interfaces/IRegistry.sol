// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @title What others ask the registry.
interface IRegistry {
    /// @notice How something that is staked for stands.
    /// @param owner who registered it and stakes for it first; zero if unknown
    /// @param class its class of hardware; indexers have class 0
    /// @param generation rises with each change of fingerprint
    /// @param verified whether its present fingerprint was verified
    struct Subject {
        address owner;
        uint32 class;
        uint32 generation;
        bool verified;
    }

    /// @notice How a container or an indexer stands.
    function subjectOf(bytes32 id) external view returns (Subject memory);

    /// @notice Whether an account is paid for a subject's or its host's leases, or ever was.
    function isOperatorOf(bytes32 id, address operator) external view returns (bool);
}
