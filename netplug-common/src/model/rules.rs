//! The rules of the cache, each of which can be taken out.

/// Which rules hold.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// What the cache does not know visits the host. Out: the bridge switches it to the pod that it is addressed to.
    pub miss_visits: bool,
    /// Openings visit, whatever is cached.
    pub openings_visit: bool,
    /// Openings void their tuple's entry.
    pub openings_void: bool,
    /// Closings visit, whatever is cached.
    pub closings_visit: bool,
    /// Learned is the direction of the packet. Out: its answers', too.
    pub per_direction: bool,
    /// Learned is what the host let through. Out: also what it translated and then dropped.
    pub let_through: bool,
    /// Entries ask the host again.
    pub revisit: bool,
    /// Entries of another epoch are void.
    pub epoch: bool,
    /// An entry is of the epoch that its packet entered in. Out: of the one that it was learned in.
    pub epoch_of_entering: bool,
    /// An entry is void from another interface than its own.
    pub bound_to_interface: bool,
    /// A translated flow voids an untouched one of its tuple.
    pub twins: bool,
    /// The packet that leaves is the one that entered, not only one of its hash.
    pub identity: bool,
    /// Towards a pod, learned is what is for an address of it.
    pub own_address: bool,
    /// conntrack keeps a UDP flow for `revisit` longer than it would without the cache.
    pub late_timeouts: bool,
    /// DEL unregisters a pod's address before it ends the epoch. Out: the other way round.
    pub unregisters_first: bool,
    /// What a packet carries through the host tells its epoch, too.
    pub hash_of_epoch: bool,
    /// A flow voids what is cached for its answers, unless it leads back to who asked.
    pub answers_lead_back: bool,
    /// conntrack keeps a TCP connection that is closing for `revisit` longer than it would without the cache.
    pub late_closings: bool,
}

impl Rules {
    /// As netplug is.
    pub const PRESENT: Self = Self {
        miss_visits: true,
        openings_visit: true,
        openings_void: true,
        closings_visit: true,
        per_direction: true,
        let_through: true,
        revisit: true,
        epoch: true,
        epoch_of_entering: true,
        bound_to_interface: true,
        twins: true,
        identity: true,
        own_address: true,
        late_timeouts: true,
        unregisters_first: true,
        hash_of_epoch: true,
        answers_lead_back: true,
        late_closings: true,
    };
}
