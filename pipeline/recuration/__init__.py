"""`omnitrace curate`: curate a published run again."""
