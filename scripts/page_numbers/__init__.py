"""What tables and figures of pages are made of; scripts/docs_numbers.py writes them."""
