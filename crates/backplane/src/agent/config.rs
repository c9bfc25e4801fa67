//! What an agent may be told, with the default of each setting, and what it counts.

use crate::limit::Rate;

/// Settings of an [`Agent`](crate::Agent). Sizes are bytes; a queued event counts with its payload and some 600 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The most clients. 1,024.
    pub max_clients: usize,
    /// The most clients of one user. 512.
    pub max_user_clients: usize,
    /// The most subscriptions of a client. 64.
    pub max_subscriptions: usize,
    /// The most events that wait for one client. 4,096.
    pub queue_events: usize,
    /// The most bytes of events that wait for one client. 4 MiB.
    pub queue_bytes: usize,
    /// The most bytes of events that wait for all clients; each has an equal share, if that is less. 64 MiB.
    pub all_queue_bytes: usize,
    /// How many events of this host are replayed at most, and as many again of others. 4,096.
    pub history_events: usize,
    /// How many bytes of events of this host are kept for that, and as many again of others. 8 MiB.
    pub history_bytes: usize,
    /// How many events wait to leave the host. 65,536.
    pub outbox_events: usize,
    /// How many bytes of events wait to leave the host. 32 MiB.
    pub outbox_bytes: usize,
    /// Whether every event is stored before it is acknowledged, by whoever drives the agent. No.
    pub journal: bool,
    /// How many bytes of events wait to be stored. 16 MiB.
    pub journal_bytes: usize,
    /// How fast one client publishes. 100,000 a second, 50,000 at once.
    pub client_rate: Rate,
    /// How fast all clients of one user publish together. 200,000 a second, 100,000 at once.
    pub user_rate: Rate,
    /// How fast events come from one run of one signed host. 10,000 a second, 10,000 at once.
    pub signed_rate: Rate,
    /// How fast unsigned events come from everywhere together. 1,000 a second, 1,000 at once.
    pub unsigned_rate: Rate,
    /// Of how many runs of other hosts it is remembered what came, of signed and of unsigned ones each. 4,096.
    pub max_origins: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_clients: 1024,
            max_user_clients: 512,
            max_subscriptions: 64,
            queue_events: 4096,
            queue_bytes: 4 << 20,
            all_queue_bytes: 64 << 20,
            history_events: 4096,
            history_bytes: 8 << 20,
            outbox_events: 65_536,
            outbox_bytes: 32 << 20,
            journal: false,
            journal_bytes: 16 << 20,
            client_rate: Rate { per_second: 100_000, burst: 50_000 },
            user_rate: Rate { per_second: 200_000, burst: 100_000 },
            signed_rate: Rate { per_second: 10_000, burst: 10_000 },
            unsigned_rate: Rate { per_second: 1000, burst: 1000 },
            max_origins: 4096,
        }
    }
}

/// Makes the struct of plain counters and the list of their names, so that none is forgotten.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What an agent has done and refused. Counters only grow; those that say `now` are what there is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[non_exhaustive]
        pub struct Metrics {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Metrics {
            /// Names and numbers, in one order.
            pub fn visit(&self, mut visit: impl FnMut(&'static str, u64)) {
                $(visit(stringify!($name), self.$name);)*
            }
        }
    };
}

counters! {
    /// Clients attached now.
    clients_now,
    /// Bytes of events that wait for clients now.
    queued_bytes_now,
    /// Events that can be replayed now.
    history_events_now,
    /// Bytes of them.
    history_bytes_now,
    /// Events that wait to leave the host now.
    outbox_events_now,
    /// Bytes of them.
    outbox_bytes_now,
    /// Events that wait to be stored now.
    journal_events_now,
    /// Runs of other hosts that are remembered now.
    origins_now,
    /// Clients attached.
    attached,
    /// Clients refused.
    attach_refused,
    /// Events published here.
    published,
    /// Of these, the ones that were acknowledged.
    acknowledged,
    /// Publishing refused: not declared.
    undeclared,
    /// Publishing and subscribing refused by a rule.
    denied,
    /// Publishing refused: too fast.
    too_fast,
    /// Acknowledged publishing refused: no room to keep it until it has left the host.
    outbox_full,
    /// Events that found no room among those that leave the host.
    outbox_lost,
    /// Acknowledged publishing refused: it cannot be stored.
    not_stored,
    /// Events that were handed on and not stored: no room, or storing fails.
    journal_lost,
    /// Events put into queues, replays included.
    queued,
    /// Of these, the ones that were replayed.
    replayed,
    /// Events that gave way to newer ones in a full queue.
    dropped,
    /// Events taken in from other hosts.
    remote,
    /// Of these, the ones that nobody vouches for.
    remote_unsigned,
    /// Events from other hosts that were here already.
    remote_duplicates,
    /// Our own events that came back.
    remote_own,
    /// Events that a host sent which did not originate them.
    remote_relayed,
    /// Events from other hosts refused by a rule.
    remote_denied,
    /// Events from other hosts that came too fast.
    remote_too_fast,
    /// Events from other hosts with a number that there cannot be.
    remote_malformed,
}
