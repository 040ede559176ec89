"""Records to tables, plots and one page: collect, place in a grid, compare, write."""
