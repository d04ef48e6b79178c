"""The cell's shared state: one transactional store, kept in etcd or in memory."""
