"""Rules tried out: samples on a stand in virtual time, and recordings played again."""
