//! What people see of each hook on this node, read without asking anybody.

use arc_swap::ArcSwap;
use failover_core::record::HookEvent;
use failover_core::time::{Time, rfc3339};
use serde::Serialize;
use std::sync::Arc;

/// One hook of this node, and how it fares since the node was started. What a leader's hooks are told, is told by the
/// leader alone: the others' numbers stand still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HookView {
    /// Its name, which is never a secret.
    pub name: String,
    /// `handler`, `script`, `webhook`, `xcodis` or `codis`.
    pub kind: &'static str,
    /// What it is run on.
    pub events: Vec<HookEvent>,
    /// How many wait for it, also for another try, or are on their way.
    pub queued: usize,
    /// How often it was told something, or asked.
    pub delivered: u64,
    /// How often it was given up on, or failed when it was asked.
    pub failed: u64,
    /// What went wrong last, a sentence; kept when it works again.
    pub last_error: Option<String>,
    /// When it was tried last.
    #[serde(serialize_with = "rfc3339::option::serialize")]
    pub last_at: Option<Time>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    cells: Arc<Vec<ArcSwap<HookView>>>,
}

impl Shown {
    pub(super) fn new(views: impl Iterator<Item = HookView>) -> Self {
        Self { cells: Arc::new(views.map(ArcSwap::from_pointee).collect()) }
    }

    pub(super) fn publish(&self, index: usize, view: HookView) {
        if let Some(cell) = self.cells.get(index) {
            cell.store(Arc::new(view));
        }
    }

    /// In the order in which they were registered.
    pub(crate) fn views(&self) -> Vec<HookView> {
        self.cells.iter().map(|cell| HookView::clone(&cell.load())).collect()
    }
}
