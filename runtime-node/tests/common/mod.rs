//! A fleet that runs steps as processes of this host behind the real supervisor protocol's rules, and a server that is played by the test.

pub mod fleet;
pub mod server;
