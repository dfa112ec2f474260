"""Which arm answers: the write-ahead decision."""
