//! Non-masquerade CIDRs as people write them: by themselves, or a well-known list by its name.

use ipnetwork::IpNetwork;

/// The name of ip-masq-agent's defaults.
pub const IP_MASQ_AGENT: &str = "ip-masq-agent";
/// The name of kubenet's, which are netplug's.
pub const KUBENET: &str = "kubenet";

/// What each name stands for. Neither of the two has a default for IPv6; RFC 4193's addresses are what RFC 1918's are for IPv4.
const NAMED: [(&str, &[&str]); 2] = [
    (IP_MASQ_AGENT, &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]),
    (KUBENET, &["10.0.0.0/8", "fc00::/7"]),
];

/// Why a text is no CIDR that can be exempt.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It is neither a CIDR nor a name.
    #[error("{0:?} is neither a CIDR nor one of the names {IP_MASQ_AGENT:?} and {KUBENET:?}")]
    Unknown(String),
    /// Its address is not the network's.
    #[error("{text} has host bits set; the network is {network}")]
    HostBits {
        /// What was written.
        text: String,
        /// What may have been meant.
        network: IpNetwork,
    },
}

/// The CIDRs that `text` stands for.
pub fn parse(text: &str) -> Result<Vec<IpNetwork>, Wrong> {
    if let Some((_, cidrs)) = NAMED.iter().find(|(name, _)| *name == text) {
        return cidrs.iter().map(|cidr| one(cidr)).collect();
    }
    one(text).map(|cidr| vec![cidr])
}

/// The CIDRs that any of `texts` stands for.
pub fn parse_all<T: AsRef<str>>(texts: &[T]) -> Result<Vec<IpNetwork>, Wrong> {
    let lists = texts.iter().map(|text| parse(text.as_ref())).collect::<Result<Vec<_>, _>>()?;
    Ok(lists.concat())
}

fn one(text: &str) -> Result<IpNetwork, Wrong> {
    let cidr: IpNetwork = text.parse().map_err(|_| Wrong::Unknown(text.into()))?;
    check(cidr).map(|()| cidr)
}

/// Whether a CIDR's address is its network's.
pub fn check(cidr: IpNetwork) -> Result<(), Wrong> {
    if cidr.ip() == cidr.network() {
        return Ok(());
    }
    let network = IpNetwork::new(cidr.network(), cidr.prefix()).unwrap_or(cidr);
    Err(Wrong::HostBits { text: cidr.to_string(), network })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_their_lists() {
        let agent = parse(IP_MASQ_AGENT).unwrap();
        let texts: Vec<_> = agent.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]);
        assert_eq!(parse_all(&["192.0.2.0/24", KUBENET]).unwrap().len(), 3);
    }

    #[test]
    fn what_is_no_network_is_named() {
        let said = |text| parse(text).unwrap_err().to_string();
        assert_eq!(said("10.1.0.0/8"), "10.1.0.0/8 has host bits set; the network is 10.0.0.0/8");
        assert_eq!(said("fc00::1/7"), "fc00::1/7 has host bits set; the network is fc00::/7");
        for text in ["gke", "10.0.0.0/33", "", "10.0.0/8", "10.0.0.0/8 "] {
            assert!(said(text).contains("neither a CIDR nor one of the names"), "{text}");
        }
    }
}
