//! The forwarding plane: ports, workers, and the control socket around `vswitch-core`.
