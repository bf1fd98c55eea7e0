//! What the control plane asks of the system: private folders, files written whole, local sockets, fewer privileges.

pub mod private_dir;
pub mod privileges;
pub mod small_file;
pub mod unix_socket;
