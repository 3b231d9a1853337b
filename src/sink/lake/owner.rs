//! Whom a table belongs to.

use std::sync::Arc;

use super::{LakeOptions, Open};
use crate::error::{Error, Result};
use crate::table::plan::CommitPlan;

/// Whom tables belong to. Two deployments that write one table would each hold it for theirs: what one has read the
/// other takes for its own progress.
#[derive(Debug, Clone)]
pub struct Owner {
    /// The deployment: all instances that share the reading of topics.
    pub id: Arc<str>,
    /// Tables of another deployment become this one's with the first commit.
    pub take_over: bool,
}

impl Open {
    /// The deployment that the table belongs to, when that is another one.
    pub(super) fn stranger(&self, options: &LakeOptions) -> Option<&Arc<str>> {
        let ours = options.owner.as_ref()?;
        self.authority.state().owner.as_ref().filter(|owner| **owner != ours.id)
    }

    /// Fails when the table belongs to another deployment.
    pub(super) fn check_owner(&self, options: &LakeOptions) -> Result<()> {
        let (Some(ours), Some(owner)) = (&options.owner, self.stranger(options)) else {
            return Ok(());
        };
        if ours.take_over {
            return Ok(());
        }
        Err(Error::fenced(format!(
            "the table {} belongs to another deployment, {owner}; this one is {}",
            options.name, ours.id
        ))
        .hint("give one of them other tables or another warehouse; if the other is gone for good, start once with --take-over"))
    }

    /// The commit makes the table this deployment's, where it is not yet.
    pub(super) fn claim(&self, commit: &mut CommitPlan, options: &LakeOptions) {
        let Some(ours) = &options.owner else { return };
        let before = &self.authority.state().owner;
        if before.as_ref() == Some(&ours.id) {
            return;
        }
        if let Some(before) = before {
            tracing::warn!(table = &*options.name, from = &**before, "taking the table over");
            let taken = format!("taken over from {before}");
            let also = commit.audit.iter().map(String::as_str);
            commit.audit = Some(also.chain([&*taken]).collect::<Vec<_>>().join("; "));
        }
        commit.owner = Some(Arc::clone(&ours.id));
    }
}
