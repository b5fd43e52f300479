// Package rows says which rows of a block of traces meet a condition, and what fields are worth in them.
//
//	c := rows.Compile(filter.Cond)
//	b := rows.NewBlock(block)
//	set, err := c.Eval(b, b.All())
//
// Conditions are evaluated a column at a time: a comparison with a constant looks at each entry of a dictionary once, also
// when blocks share the dictionary, and maps the codes of rows to a bitmap. Only columns that a condition names are decoded,
// and those of the second operand of && only when the first one holds somewhere. Relations between spans (Tree) take one or
// two passes over the rows, as parents stand before children.
//
// Nothing here is safe for concurrent use.
package rows
