//! Counters. They only grow, and nothing reads them to decide.

/// What an endpoint has done and refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Payload bytes sent for the first time.
    pub bytes_sent: u64,
    /// Payload bytes sent again.
    pub bytes_resent: u64,
    /// Bytes of the frames of small foreground messages that went out on a second path at once.
    pub bytes_redundant: u64,
    /// Times that such a message went out on one path only, because the second would have gone over
    /// [`Config::redundancy_budget`](crate::Config::redundancy_budget).
    pub refused_redundancy: u64,
    /// Bytes of frames that carry no message: these are exempt from network rules.
    pub bytes_control: u64,
    /// Payload bytes that arrived and were new.
    pub bytes_received: u64,
    /// Payload bytes that arrived and were already here.
    pub bytes_duplicate: u64,
    /// Whole frames that arrived.
    pub frames_received: u64,
    /// Frames for sessions or messages that are no longer here.
    pub frames_late: u64,
    /// Messages dropped because they expired here before the application took them.
    pub expired_here: u64,
    /// Times a path became suspect.
    pub suspicions: u64,
    /// Times a suspect path answered again.
    pub recoveries: u64,
    /// Paths that went down.
    pub paths_down: u64,
    /// Paths closed because a frame could not be read.
    pub violations_decode: u64,
    /// Paths closed because of HELLO.
    pub violations_hello: u64,
    /// Paths closed because a peer sent more than it may.
    pub violations_flow_control: u64,
    /// Paths closed because a peer contradicted itself.
    pub violations_contradiction: u64,
    /// Paths closed because a peer reported what was never sent.
    pub violations_progress: u64,
    /// Paths closed because a peer went over a bound.
    pub violations_limit: u64,
    /// Incoming carriers refused because too many had not said HELLO, or closed because they did not say it in time.
    pub refused_greetings: u64,
    /// Paths closed because bytes of a message were under way on them that may no longer use their networks.
    pub rules_enforced: u64,
    /// Carriers refused or closed because of [`Config::never_connect`](crate::Config::never_connect). What a driver does
    /// not even authenticate is not among them.
    pub refused_networks: u64,
    /// Processes of a peer refused because it had too many.
    pub refused_processes: u64,
    /// Incoming sessions refused.
    pub refused_sessions: u64,
    /// Sessions ended because their peer made this side hold too much.
    pub refused_memory: u64,
    /// Sessions that ended because one side came back with an older state.
    pub rolled_back: u64,
    /// Verdicts on processes of peers.
    pub verdicts: u64,
    /// Of these, those that a process lives after all.
    pub verdicts_revoked: u64,
    /// Sessions forgotten because too many were parked.
    pub forgotten: u64,
}
