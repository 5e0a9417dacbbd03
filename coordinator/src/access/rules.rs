//! The table: every method, the least role that may call it, and whether it changes something.

use fovea_security::Role;

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Also a stranger, who has neither a certificate nor a token.
    Anybody,
    /// Every member of the cluster.
    Members,
    /// People in this role, and in those above it.
    People(Role),
    /// Workers alone.
    Workers,
    /// Workers, and people in this role and above.
    WorkersAndPeople(Role),
}

/// The rule of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub who: Who,
    /// Whether the audit log names each call.
    pub is_change: bool,
}

use Role::{Admin, Submitter, Viewer};
use Who::{Anybody, Members, People, Workers, WorkersAndPeople};

const fn read(who: Who) -> Rule {
    Rule {
        who,
        is_change: false,
    }
}

const fn change(who: Who) -> Rule {
    Rule {
        who,
        is_change: true,
    }
}

/// Every method that is served. A test compares it with the descriptors.
#[rustfmt::skip]
const RULES: &[(&str, Rule)] = &[
    ("/fovea.v1.Runs/Get", read(People(Viewer))),
    ("/fovea.v1.Runs/List", read(People(Viewer))),
    ("/fovea.v1.Runs/Watch", read(People(Viewer))),
    ("/fovea.v1.Runs/Audit", read(People(Viewer))),
    ("/fovea.v1.Runs/Scores", read(People(Viewer))),
    ("/fovea.v1.Runs/Losses", read(People(Viewer))),
    ("/fovea.v1.Runs/Submit", change(People(Submitter))),
    // It changes nothing of the run but the record that it was evaluated.
    ("/fovea.v1.Runs/Evaluate", change(People(Submitter))),
    // Of one's own runs; an admin of all.
    ("/fovea.v1.Runs/Cancel", change(People(Submitter))),
    ("/fovea.v1.Runs/Pause", change(People(Submitter))),
    ("/fovea.v1.Runs/Resume", change(People(Submitter))),
    ("/fovea.v1.Runs/SetPriority", change(People(Submitter))),
    ("/fovea.v1.Runs/Delete", change(People(Submitter))),
    ("/fovea.v1.Groups/Get", read(People(Viewer))),
    ("/fovea.v1.Groups/List", read(People(Viewer))),
    ("/fovea.v1.Groups/Submit", change(People(Submitter))),
    // Of one's own group; an admin of all.
    ("/fovea.v1.Groups/Cancel", change(People(Submitter))),
    ("/fovea.v1.Groups/SetPriority", change(People(Submitter))),
    ("/fovea.v1.Groups/Delete", change(People(Submitter))),
    ("/fovea.v1.Datasets/List", read(People(Viewer))),
    ("/fovea.v1.Datasets/Get", read(WorkersAndPeople(Viewer))),
    ("/fovea.v1.Datasets/Create", change(People(Submitter))),
    // Datasets belong to nobody: only those without grades, which are sent for one prediction, may be removed by a submitter.
    ("/fovea.v1.Datasets/Delete", change(People(Submitter))),
    // The photographs of patients.
    ("/fovea.v1.Datasets/FetchPack", read(Workers)),
    ("/fovea.v1.Weights/List", read(People(Viewer))),
    ("/fovea.v1.Weights/Create", change(People(Submitter))),
    ("/fovea.v1.Weights/Fetch", read(Workers)),
    // Weights belong to nobody.
    ("/fovea.v1.Weights/Delete", change(People(Admin))),
    ("/fovea.v1.Cluster/ListWorkers", read(People(Viewer))),
    ("/fovea.v1.Cluster/Status", read(People(Viewer))),
    ("/fovea.v1.Cluster/ListQueue", read(People(Viewer))),
    ("/fovea.v1.Cluster/ListDenied", read(People(Viewer))),
    ("/fovea.v1.Cluster/DenyWorker", change(People(Admin))),
    ("/fovea.v1.Cluster/AllowWorker", change(People(Admin))),
    // With a token for joining in the message.
    ("/fovea.v1.Identity/Join", change(Anybody)),
    ("/fovea.v1.Identity/Renew", change(Workers)),
    ("/fovea.v1.Identity/Show", read(Members)),
    ("/fovea.v1.Tokens/Create", change(People(Admin))),
    ("/fovea.v1.Tokens/List", read(People(Admin))),
    ("/fovea.v1.Tokens/Revoke", change(People(Admin))),
    ("/fovea.v1.Checkpoints/List", read(People(Viewer))),
    ("/fovea.v1.Checkpoints/Get", read(WorkersAndPeople(Submitter))),
    // Puts corrupt files aside.
    ("/fovea.v1.Checkpoints/Verify", change(People(Submitter))),
    // Of one's own runs; an admin of all.
    ("/fovea.v1.Checkpoints/Delete", change(People(Submitter))),
    ("/fovea.v1.Workers/Session", read(Workers)),
    ("/fovea.v1.Workers/UploadSlice", read(Workers)),
    // Puts corrupt files aside.
    ("/fovea.v1.Admin/Verify", change(People(Admin))),
    // All runs and names: more than one person's.
    ("/fovea.v1.Admin/Backup", change(People(Admin))),
    ("/grpc.health.v1.Health/Check", read(Members)),
    ("/grpc.health.v1.Health/Watch", read(Members)),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", read(People(Viewer))),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", read(People(Viewer))),
];

/// The rule of the method at this path; None if there is no such method.
pub(super) fn rule(path: &str) -> Option<Rule> {
    let (_, rule) = RULES.iter().find(|(method, _)| *method == path)?;
    Some(*rule)
}

impl Who {
    /// Whether this role is among them.
    pub(super) fn includes(self, role: Role) -> bool {
        // Roles of people are ordered.
        let person = |least: Role| role.is_person() && role >= least;
        match self {
            Anybody | Members => true,
            People(least) => person(least),
            Workers => role == Role::Worker,
            WorkersAndPeople(least) => role == Role::Worker || person(least),
        }
    }

    /// In words.
    pub(super) fn words(self) -> String {
        match self {
            Anybody => "anybody".into(),
            Members => "every member of the cluster".into(),
            People(Role::Admin) => "an admin".into(),
            People(least) => format!("a {least}, or a person with more rights"),
            Workers => "a worker".into(),
            WorkersAndPeople(least) => format!("a worker, or a {least} or more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn every_method_has_a_rule_and_every_rule_a_method() {
        let mut methods = BTreeSet::new();
        for set in [
            fovea_proto::DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ] {
            for file in FileDescriptorSet::decode(set).unwrap().file {
                for service in &file.service {
                    for method in &service.method {
                        let (package, service) = (file.package(), service.name());
                        methods.insert(format!("/{package}.{service}/{}", method.name()));
                    }
                }
            }
        }
        assert!(methods.len() > 20, "{methods:?}");
        let ruled: BTreeSet<String> = RULES.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(ruled.len(), RULES.len(), "a method has two rules");
        let bare: Vec<_> = methods.difference(&ruled).collect();
        assert!(bare.is_empty(), "without a rule: {bare:?}");
        let stale: Vec<_> = ruled.difference(&methods).collect();
        assert!(stale.is_empty(), "no such method: {stale:?}");
    }

    #[test]
    fn roles_in_the_table() {
        let allowed = |path: &str| -> Vec<Role> {
            let rule = rule(path).unwrap();
            Role::ALL
                .into_iter()
                .filter(|role| rule.who.includes(*role))
                .collect()
        };
        let people = vec![Viewer, Submitter, Admin];
        assert_eq!(allowed("/fovea.v1.Runs/List"), people);
        assert_eq!(allowed("/fovea.v1.Runs/Submit"), [Submitter, Admin]);
        assert_eq!(allowed("/fovea.v1.Admin/Verify"), [Admin]);
        assert_eq!(allowed("/fovea.v1.Workers/Session"), [Role::Worker]);
        let both = [Role::Worker, Submitter, Admin];
        assert_eq!(allowed("/fovea.v1.Checkpoints/Get"), both);
        assert_eq!(allowed("/grpc.health.v1.Health/Check"), Role::ALL);
        assert_eq!(rule("/fovea.v1.Runs/Nonsense"), None);
    }
}
