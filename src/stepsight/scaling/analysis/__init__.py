"""From folders of records to curves, laws and relations, without torch."""
