"""What waits in an outbox."""


def all_of(outbox):
    """The values of all records that are to be tried, in order."""
    found, after = [], -1
    while record := outbox.next(after):
        found.append(record)
        after = record.number
    return found
