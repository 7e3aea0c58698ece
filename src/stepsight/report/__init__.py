"""What people read: pages, figures, tables and the sentences in them."""
