//! Who a flow was of, over simulated clusters whose pods come and go and of which the truth is known.

mod attributed;
mod learned;

use tests::identities;
