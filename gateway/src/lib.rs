//! Vestibule, a programmable edge gateway.
