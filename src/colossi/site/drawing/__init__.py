"""A design as pictures: floor plans, rack elevations, the fabric, and a page that joins them."""
