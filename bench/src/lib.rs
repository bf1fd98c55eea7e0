//! Load generators and promised numbers.
