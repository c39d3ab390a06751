//! How long masquerade and HostPorts keep a flow's ports after its last packet: `timeouts`, by conntrack's names, in seconds.

use netplug_common::decide::mapping_life::Lifetimes;
use serde::{Deserialize, Deserializer, de};

/// Every key that is understood.
pub(super) const KEYS: &[&str] =
    &["tcpOpening", "tcpEstablished", "tcpClosing", "udp", "udpStream", "icmp", "sctpEstablished"];

/// The longest: mappings end by 32 bits of jiffies, of which there are up to 1,000 in a second.
const LONGEST: u32 = 2_000_000;

/// What is named; conntrack's defaults for the rest.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Timeouts {
    tcp_opening: Option<Seconds>,
    tcp_established: Option<Seconds>,
    tcp_closing: Option<Seconds>,
    udp: Option<Seconds>,
    udp_stream: Option<Seconds>,
    icmp: Option<Seconds>,
    sctp_established: Option<Seconds>,
}

#[derive(Debug, Clone, Copy)]
struct Seconds(u32);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let seconds = u32::deserialize(from)?;
        if (1..=LONGEST).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(de::Error::custom(format_args!("{seconds} is not from 1 to {LONGEST} seconds")))
        }
    }
}

impl Timeouts {
    /// The same with the defaults, for the programs.
    pub(super) fn lifetimes(&self) -> Lifetimes {
        let or = |wanted: Option<Seconds>, default| wanted.map_or(default, |seconds| seconds.0);
        let default = Lifetimes::DEFAULT;
        Lifetimes {
            tcp_opening: or(self.tcp_opening, default.tcp_opening),
            tcp_established: or(self.tcp_established, default.tcp_established),
            tcp_closing: or(self.tcp_closing, default.tcp_closing),
            udp: or(self.udp, default.udp),
            udp_stream: or(self.udp_stream, default.udp_stream),
            icmp: or(self.icmp, default.icmp),
            sctp_established: or(self.sctp_established, default.sctp_established),
            _pad: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_named_is_conntracks() {
        let timeouts: Timeouts = serde_json::from_value(json!({"udp": 10})).unwrap();
        assert_eq!(timeouts.lifetimes(), Lifetimes { udp: 10, ..Lifetimes::DEFAULT });
        assert_eq!(Timeouts::default().lifetimes(), Lifetimes::DEFAULT);
    }

    #[test]
    fn every_key_is_read() {
        let numbers = |lifetimes: Lifetimes| bytemuck::cast::<_, [u32; 8]>(lifetimes);
        for (index, key) in KEYS.iter().enumerate() {
            let timeouts: Timeouts = serde_json::from_value(json!({*key: 7})).unwrap();
            // Keys stand as the fields do.
            let mut wanted = numbers(Lifetimes::DEFAULT);
            wanted[index] = 7;
            assert_eq!(numbers(timeouts.lifetimes()), wanted, "{key}");
            for wrong in [json!(0), json!(3_000_000), json!("10s")] {
                assert!(serde_json::from_value::<Timeouts>(json!({*key: wrong})).is_err());
            }
        }
    }
}
