//! Keys: seal and open, custody, rotation, erasure of keys.
