// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Registry} from "../src/Registry.sol";
import {Network} from "./Network.sol";

/// What an audit of the other contracts found, each as it was exploited.
contract AuditNetworkTest is Network {
    /// While the verifier's transaction waits, the owner changes the class and puts the fingerprint
    /// back that the verifier has seen.
    function test_a_class_that_nobody_looked_at_is_not_verified() public {
        registry.unverify(container, "again");
        uint32 seen = registry.subjectOf(container).generation;
        vm.startPrank(owner);
        registry.setFingerprint(container, 9, "another");
        registry.setFingerprint(container, 9, "fingerprint");
        vm.stopPrank();
        vm.expectRevert(Registry.Outdated.selector);
        registry.verify(container, "fingerprint", seen);
        vm.assertTrue(!registry.subjectOf(container).verified);
    }
}
