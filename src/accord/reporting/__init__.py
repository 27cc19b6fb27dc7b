"""Reports: one offline HTML file, charts as inline SVG."""
