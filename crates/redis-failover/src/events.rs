//! The way into the loop: two bounded lanes, so that what decides is not behind what is routine.

use failover_core::event::{Event, Probed};
use tokio::sync::mpsc;

/// Most events that wait in one lane; then the sender waits, and its instance is not asked again meanwhile.
pub(crate) const LANE_EVENTS_MAX: usize = 4096;

/// The senders' end.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    urgent: mpsc::Sender<Event>,
    routine: mpsc::Sender<Event>,
}

/// The loop's end.
#[derive(Debug)]
pub(crate) struct Lanes {
    pub(crate) urgent: mpsc::Receiver<Event>,
    pub(crate) routine: mpsc::Receiver<Event>,
}

impl Events {
    pub(crate) fn lanes() -> (Self, Lanes) {
        let (urgent, urgent_end) = mpsc::channel(LANE_EVENTS_MAX);
        let (routine, routine_end) = mpsc::channel(LANE_EVENTS_MAX);
        (Self { urgent, routine }, Lanes { urgent: urgent_end, routine: routine_end })
    }

    /// Sends an event; when the loop is gone, so is the need for it.
    pub(crate) async fn send(&self, event: Event) {
        let lane = match &event {
            Event::Probed { outcome: Probed::Replied { .. }, .. }
            | Event::Accepted { .. }
            | Event::Told { .. } => &self.routine,
            Event::Probed { .. }
            | Event::Ended { .. }
            | Event::Commanded { .. }
            | Event::Leadership(_)
            | Event::Voters(_)
            | Event::Committed { .. }
            | Event::NotCommitted { .. }
            | Event::Unsettled { .. }
            | Event::Restored(_)
            | Event::Testified { .. }
            | Event::Hinted { .. }
            | Event::Vetted { .. }
            | Event::Request { .. } => &self.urgent,
        };
        let _ = lane.send(event).await;
    }
}
