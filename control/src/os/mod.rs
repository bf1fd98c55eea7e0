//! The operating system: private directories, atomic files, local sockets, and dropping privileges.

pub mod private_dir;
pub mod privileges;
pub mod small_file;
pub mod unix_socket;
