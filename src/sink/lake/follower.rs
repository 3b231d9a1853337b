//! The second format of a table: the same data files in another log, which may be behind the first one's.

use super::{CONFLICTS, LakeOptions, Open};
use crate::error::{Error, Result};
use crate::metrics::CommitOutcome;
use crate::table::plan::{CommitPlan, Published};

impl Open {
    /// The same plan for the follower, which is like the version that the plan was made on. Positions alone do not tell
    /// that: a follower without any takes whatever comes first, and others may have committed to the authority. When the
    /// follower is not told that it has the plan, it is brought up later.
    pub(super) async fn publish_to_follower(
        &mut self,
        plan: &CommitPlan,
        options: &LakeOptions,
    ) -> Result<()> {
        let Some(follower) = &mut self.follower else { return Ok(()) };
        // Without a position to tell, it is compared and brought up.
        if plan.ranges.is_empty() {
            return Ok(());
        }
        match follower.timed_publish(plan, options, CommitOutcome::Committed).await? {
            Published::Committed { .. } => self.followed = Some(self.version),
            Published::Conflict | Published::Unknown(_) => {}
        }
        Ok(())
    }

    /// Brings the follower up if it may be behind.
    pub(super) async fn follow(&mut self, options: &LakeOptions) -> Result<()> {
        if self.follower.is_none() || self.followed == Some(self.version) {
            return Ok(());
        }
        self.bring_up(options).await
    }

    /// Makes the follower's table version the authority's. Always from the authority's newest state: an older one
    /// could undo what another instance has brought up already.
    pub(super) async fn bring_up(&mut self, options: &LakeOptions) -> Result<()> {
        for _ in 0..CONFLICTS {
            let Some(follower) = &mut self.follower else { return Ok(()) };
            follower.refresh().await?;
            self.refresh().await?;
            let now = options.clock.now_millis();
            let Some(follower) = &mut self.follower else { return Ok(()) };
            let Some(plan) = self.table.difference(follower.state(), now).await? else {
                self.followed = Some(self.version);
                return Ok(());
            };
            tracing::info!(
                table = &*options.name,
                format = follower.format(),
                files_added = plan.added.len(),
                files_removed = plan.removed.len(),
                "bringing the second format up to the first"
            );
            match follower.timed_publish(&plan, options, CommitOutcome::BroughtUp).await? {
                // The next round looks.
                Published::Committed { .. } | Published::Conflict => {}
                Published::Unknown(error) => return Err(error),
            }
        }
        Err(Error::unavailable(format!(
            "cannot bring up the second format of {}: others committed first {CONFLICTS} times in a row",
            options.name
        )))
    }
}
