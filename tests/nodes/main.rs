//! Scenarios on whole nodes: the real binary, real veths, real service-proxy rules. One file per behaviour.

mod scene;

mod amnesia;
mod bad_input;
mod bridge;
mod chained;
mod conntrack;
mod faults;
mod firewall;
mod fixture;
mod fragments;
mod guard;
mod host_port_twins;
mod host_ports;
mod icmp;
mod lifecycle;
mod macs;
mod masquerade;
mod offload;
mod others_filters;
mod outside;
mod ports;
mod pressure;
mod promote;
mod reuse;
mod services;
mod settings;
mod steady;
mod storm;
mod unload;
mod uplinks;
mod views;
mod watch;
mod without_gateway;
mod without_netplug;
