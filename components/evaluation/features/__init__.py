"""Features of the user's own extractors: exported torch programs, and how those of the field are exported."""
