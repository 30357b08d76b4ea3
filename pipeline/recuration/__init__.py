"""`omnitrace curate`: a published run curated again."""
