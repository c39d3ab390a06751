//! Ranges of addresses: what may be leased, and in which order. Pure.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::Error;

/// Addresses of one subnet, from `first` to `last`, without the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The subnet.
    pub subnet: IpNetwork,
    /// The lowest address that may be leased.
    pub first: IpAddr,
    /// The highest address that may be leased.
    pub last: IpAddr,
    /// The gateway, which is never leased.
    pub gateway: IpAddr,
}

/// Ranges of which a pod gets one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeSet {
    /// The ranges, all of one family.
    pub ranges: Vec<Range>,
}

impl fmt::Display for Range {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({}-{})", self.subnet, self.first, self.last)
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.ranges.iter().map(ToString::to_string).collect();
        formatter.write_str(&names.join(", "))
    }
}

/// An address as a number, for order and steps.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The address `like` another in family, of a number.
fn address(number: u128, like: IpAddr) -> IpAddr {
    match like {
        // Callers stay within the family's range.
        IpAddr::V4(_) => IpAddr::from(std::net::Ipv4Addr::from(number as u32)),
        IpAddr::V6(_) => IpAddr::from(std::net::Ipv6Addr::from(number)),
    }
}

impl Range {
    /// A range, with host-local's defaults: from the subnet's second address, the gateway its first, up to the last but
    /// broadcast (plugins/ipam/host-local/backend/allocator/range.go, `Canonicalize`).
    pub fn new(
        subnet: IpNetwork,
        first: Option<IpAddr>,
        last: Option<IpAddr>,
        gateway: Option<IpAddr>,
    ) -> Result<Self, Error> {
        let wrong = |wrong| Error::Range { range: subnet.to_string(), wrong };
        if subnet.ip() != subnet.network() {
            return Err(wrong("has host bits set"));
        }
        let bits = if subnet.is_ipv4() { 32 } else { 128 };
        if subnet.prefix() + 2 > bits {
            return Err(wrong("is too small: it has no room for a gateway and a pod"));
        }
        let lowest = number(subnet.network()) + 1;
        let hosts = if bits - subnet.prefix() == 128 {
            u128::MAX
        } else {
            (1u128 << (bits - subnet.prefix())) - 1
        };
        // IPv4's last address is the broadcast; IPv6 has none, but host-local spares it too.
        let highest = number(subnet.network()) + hosts - 1;
        let like = subnet.network();
        let range = Self {
            subnet,
            first: first.unwrap_or_else(|| address(lowest, like)),
            last: last.unwrap_or_else(|| address(highest, like)),
            gateway: gateway.unwrap_or_else(|| address(lowest, like)),
        };
        for (end, message) in [
            (range.first, "rangeStart is outside of the subnet"),
            (range.last, "rangeEnd is outside of the subnet"),
        ] {
            if !subnet.contains(end) {
                return Err(wrong(message));
            }
        }
        if number(range.first) > number(range.last) {
            return Err(wrong("rangeStart is above rangeEnd"));
        }
        if range.gateway.is_ipv4() != subnet.is_ipv4() {
            return Err(wrong("gateway is of the other family"));
        }
        Ok(range)
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.subnet.contains(address)
            && (number(self.first)..=number(self.last)).contains(&number(address))
    }

    /// Whether a pod can have an address of the range: it is not the gateway's, the network's or the broadcast.
    fn offers(&self, address: IpAddr) -> bool {
        let is_broadcast = address.is_ipv4() && address == self.subnet.broadcast();
        address != self.gateway && address != self.subnet.network() && !is_broadcast
    }

    /// Whether two ranges share an address.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first.is_ipv4() == other.first.is_ipv4()
            && number(self.first) <= number(other.last)
            && number(other.first) <= number(self.last)
    }
}

impl RangeSet {
    /// Every address that may be leased, each once, beginning behind `last`, the one that was leased last. So an address
    /// that was given back does not come again at once.
    pub fn candidates(&self, last: Option<IpAddr>) -> impl Iterator<Item = (IpAddr, &Range)> {
        let at = last.and_then(|last| {
            self.ranges.iter().position(|range| range.contains(last)).map(|at| (at, last))
        });
        let (start, from) = at.map_or((0, None), |(at, last)| (at, Some(number(last) + 1)));
        let count = self.ranges.len();
        // The range of the last lease is gone through from behind it, then the others, then its beginning.
        let tail = std::iter::once((start, from, None));
        let others = (1..count).map(move |step| ((start + step) % count, None, None));
        let head = from.map(|from| (start, None, Some(from))).into_iter();
        tail.chain(others)
            .chain(head)
            .flat_map(move |(at, from, until)| {
                let range = &self.ranges[at];
                let from = from.unwrap_or_else(|| number(range.first));
                let until = until.map_or_else(|| number(range.last), |until| until - 1);
                (from..=until).map(move |number| (address(number, range.first), range))
            })
            .filter(|(address, range)| range.offers(*address))
    }

    /// Whether its addresses are IPv6; all are of one family.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.ranges.first().is_some_and(|range| range.subnet.is_ipv6())
    }

    /// The range that `address` may be leased from.
    #[must_use]
    pub fn offering(&self, address: IpAddr) -> Option<&Range> {
        self.ranges.iter().find(|range| range.contains(address) && range.offers(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn set(subnets: &[&str]) -> RangeSet {
        let ranges = subnets
            .iter()
            .map(|s| Range::new(s.parse().unwrap(), None, None, None).unwrap())
            .collect();
        RangeSet { ranges }
    }

    #[test]
    fn network_gateway_and_broadcast_are_never_leased() {
        let all: Vec<_> =
            set(&["10.1.2.0/29"]).candidates(None).map(|(a, _)| a.to_string()).collect();
        assert_eq!(all, ["10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6"]);
    }

    #[test]
    fn not_even_where_the_range_names_them() {
        let subnet: IpNetwork = "10.1.2.0/30".parse().unwrap();
        let (first, last) = (Some(subnet.network()), Some(subnet.broadcast()));
        let set = RangeSet { ranges: vec![Range::new(subnet, first, last, None).unwrap()] };
        let all: Vec<_> = set.candidates(None).map(|(a, _)| a.to_string()).collect();
        assert_eq!(all, ["10.1.2.2"]);
        assert!(set.offering(subnet.broadcast()).is_none());
        assert!(set.offering("10.1.2.2".parse().unwrap()).is_some());
    }

    #[test]
    fn the_search_begins_behind_the_last_lease_and_wraps() {
        let last = Some("10.1.2.5".parse().unwrap());
        let all: Vec<_> =
            set(&["10.1.2.0/29"]).candidates(last).map(|(a, _)| a.to_string()).collect();
        assert_eq!(all, ["10.1.2.6", "10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5"]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let new = |s: &str| Range::new(s.parse().unwrap(), None, None, None);
        assert!(new("10.1.2.3/24").is_err());
        assert!(new("10.1.2.0/31").is_err());
        assert!(new("fd00::/127").is_err());
        let outside = Some("10.9.9.9".parse().unwrap());
        assert!(Range::new("10.1.2.0/24".parse().unwrap(), outside, None, None).is_err());
    }

    proptest! {
        #[test]
        fn every_candidate_comes_once_wherever_the_search_begins(at in 2u8..14, two: bool) {
            let set = if two { set(&["10.1.2.0/28", "10.1.3.0/29"]) } else { set(&["10.1.2.0/28"]) };
            let last = Some(IpAddr::from([10, 1, 2, at]));
            let all: Vec<_> = set.candidates(last).map(|(a, _)| a).collect();
            let unique: HashSet<_> = all.iter().collect();
            prop_assert_eq!(unique.len(), all.len());
            prop_assert_eq!(all.len(), if two { 13 + 5 } else { 13 });
            prop_assert_eq!(all.last().copied(), last);
        }
    }
}
